#!/bin/sh
# Starts WordPress as the image called wordpress does: an empty /var/www/html gets the program, whose configuration
# comes from WORDPRESS_* variables, each of which may be a file's name in a variable called *_FILE.
set -eu
if [ "${1-}" = apache2-foreground ]; then
    if [ ! -e /var/www/html/index.php ]; then
        cp -rL /usr/share/wordpress/. /var/www/html
        cp /usr/local/share/wp-config.php /var/www/html/wp-config.php
        mkdir -p /var/www/html/wp-content/uploads
        chown -R www-data:www-data /var/www/html
    fi
    mkdir -p /run/lock
    set -- apache2ctl -D FOREGROUND
fi
exec "$@"
