<?php
// The configuration comes from variables, as it does in the image called wordpress.
function setting($name, $default) {
    $file = getenv("WORDPRESS_{$name}_FILE");
    if ($file) {
        return rtrim(file_get_contents($file), "\r\n");
    }
    $value = getenv("WORDPRESS_$name");
    return $value === false ? $default : $value;
}

define('DB_NAME', setting('DB_NAME', 'wordpress'));
define('DB_USER', setting('DB_USER', 'root'));
define('DB_PASSWORD', setting('DB_PASSWORD', ''));
define('DB_HOST', setting('DB_HOST', 'mysql'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $name) {
    define("{$name}_KEY", setting("{$name}_KEY", sha1($name . DB_PASSWORD)));
    define("{$name}_SALT", setting("{$name}_SALT", sha1('salt' . $name . DB_PASSWORD)));
}
$table_prefix = setting('TABLE_PREFIX', 'wp_');
define('WP_DEBUG', (bool) setting('DEBUG', ''));
if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
