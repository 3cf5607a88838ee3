#!/bin/sh
# As the official MariaDB image has one.
exec mariadb-admin --user=root ping
