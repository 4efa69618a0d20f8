#!/bin/sh
# Starts the database as the images called mysql and mariadb do: with the first start it makes the data directory, the
# root password, a database and its user from MYSQL_* (or MARIADB_*) variables, each of which may be a file's name in a
# variable called *_FILE, and runs what lies in /docker-entrypoint-initdb.d.
set -eu

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

# The value of MARIADB_$1, MYSQL_$1, or of the file that either with _FILE names.
setting() {
    for name in "MARIADB_$1" "MYSQL_$1"; do
        eval "value=\${$name-} file=\${${name}_FILE-}"
        [ -z "$file" ] || value=$(cat "$file")
        [ -z "$value" ] || break
    done
    printf %s "$value"
}

# A text as SQL has it between quotes.
quoted() { printf %s "$1" | sed -e 's/\\/\\\\/g' -e "s/'/\\\\'/g"; }

as_mysql() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid mysql --regid mysql --clear-groups "$@"; else "$@"; fi
}

# The server for the first start only, which nobody reaches over the network yet.
first_server() {
    as_mysql "$@" --skip-networking --socket="$socket" &
    server=$!
    for _ in $(seq 600); do
        ! sql -e 'select 1' >/dev/null 2>&1 || return 0
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

sql() { MYSQL_PWD=${password_set-} mariadb --protocol=socket -uroot -S "$socket" "$@"; }

accounts() {
    root=$(setting ROOT_PASSWORD) database=$(setting DATABASE) user=$(setting USER) password=$(setting PASSWORD)
    printf '%s\n' "CREATE USER IF NOT EXISTS 'root'@'%' IDENTIFIED BY '$(quoted "$root")';"
    printf '%s\n' "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
    [ -z "$database" ] || printf '%s\n' "CREATE DATABASE IF NOT EXISTS \`$database\`;"
    if [ -n "$user" ] && [ -n "$password" ]; then
        printf '%s\n' "CREATE USER '$(quoted "$user")'@'%' IDENTIFIED BY '$(quoted "$password")';"
        [ -z "$database" ] || printf '%s\n' "GRANT ALL ON \`$database\`.* TO '$(quoted "$user")'@'%';"
    fi
    printf '%s\n' "ALTER USER 'root'@'localhost' IDENTIFIED BY '$(quoted "$root")';"
}

first_start() {
    if [ -z "$(setting ROOT_PASSWORD)$(setting ALLOW_EMPTY_PASSWORD)$(setting ALLOW_EMPTY_ROOT_PASSWORD)" ]; then
        echo "the database is new and no password is given: set MYSQL_ROOT_PASSWORD or MYSQL_ALLOW_EMPTY_PASSWORD" >&2
        exit 1
    fi
    as_mysql mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db >/dev/null
    first_server "$@" || { echo "the first start of the database failed" >&2; exit 1; }
    accounts | sql
    password_set=$(setting ROOT_PASSWORD)
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) sh "$file" ;;
            *.sql) sql "$(setting DATABASE)" <"$file" ;;
            *.sql.gz) gunzip -c "$file" | sql "$(setting DATABASE)" ;;
        esac
    done
    sql -e 'SHUTDOWN'
    wait "$server"
}

case ${1--} in -*) set -- mariadbd "$@" ;; esac
case $1 in
    mysqld | mariadbd)
        mkdir -p "$data" /run/mysqld
        [ "$(id -u)" != 0 ] || chown mysql:mysql "$data" /run/mysqld
        [ -d "$data/mysql" ] || first_start "$@"
        [ "$(id -u)" != 0 ] || set -- setpriv --reuid mysql --regid mysql --clear-groups "$@"
        ;;
esac
exec "$@"
