"""Locks that let one migrator at a time work on a database.

    kind        holds                                      freed after kill -9     databases
    advisory    an open transaction's advisory lock        at once, by the server  PostgreSQL
    advisory    GET_LOCK                                   at once, by the server  MariaDB, MySQL
    file        flock on a file beside the database        at once, by the kernel  SQLite
    table       a lease, renewed every third of its time   once it has expired     any
    none        nothing                                                            any

`hold_locks` takes them, and its `Guard` tells whether they held. A thread per lock speaks on the
lock's own connection every few seconds, so that neither a server's idle limit nor a pooler or
router ends it, and so that its end is noticed while the migration runs on another connection.
The migration is not interrupted then: `Guard.lost` is set, for the runner to look at between two
revisions, and the run does not end as a success.
"""
