<?php
require __DIR__ . '/vendor/autoload.php';
echo "php " . Shop\Greeter::word() . " " . (extension_loaded('gd') ? 'gd' : 'none') . "\n";
