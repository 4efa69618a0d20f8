<?php
namespace Shop;

class Greeter
{
    public static function word(): string
    {
        return 'greets';
    }
}
