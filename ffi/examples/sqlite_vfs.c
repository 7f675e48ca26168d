/*
 * SQLite on mirrored memory: a VFS whose files, a database and its journal, lie in one region. A transaction that COMMIT has returned for is in
 * the holder's memory (or on its disk), whatever becomes of this process; the next one finds it there.
 *
 *     cc -std=c99 sqlite_vfs.c -o sqlite_vfs $(pkg-config --cflags --libs mirrorbus sqlite3)
 *     mirrorbus hold --listen tcp://127.0.0.1:7000 --size 32M --key K --file copy &
 *     ./sqlite_vfs tcp://127.0.0.1:7000 K acked new
 *     ./sqlite_vfs tcp://127.0.0.1:7000 K acked write 1000     kill it, as often as you like
 *     ./sqlite_vfs tcp://127.0.0.1:7000 K acked check
 *
 * Reads are served from this side's memory. Writes are stores of one lane, so that the copy has a prefix of them at any moment; a store may be there
 * in part when this process dies. SQLite's rollback journal copes with that as it does on a disk, and the table of files has checksums.
 * One process uses the region at a time: locks are not needed.
 */
#define _POSIX_C_SOURCE 200809L
#include <mirrorbus.h>
#include <sqlite3.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REGION_BYTES = 32 << 20, TABLE_BYTES = 4096, DATABASE_BYTES = 24 << 20, FILES = 2 };
static const uint64_t TIMEOUT = 10000000000;

/* The table of files. Two of them lie in the region; the newer whole one counts, and the other is written next. */
struct table {
    uint64_t version;
    uint64_t bytes[FILES];
    uint64_t exists[FILES];
    uint64_t checksum;
};

static struct {
    mirrorbus_region *region;
    mirrorbus_lane *lane;
    struct table table;
    int level;
} disk;

static const char *const NAMES[FILES] = {"main.db", "main.db-journal"};
static const uint64_t START[FILES] = {TABLE_BYTES, TABLE_BYTES + DATABASE_BYTES};
static const uint64_t ROOM[FILES] = {DATABASE_BYTES, REGION_BYTES - TABLE_BYTES - DATABASE_BYTES};

static uint64_t checksum(const struct table *table)
{
    uint64_t sum = 0x6d6972726f72;
    const uint64_t words[] = {table->version, table->bytes[0], table->bytes[1], table->exists[0], table->exists[1]};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        sum = (sum ^ words[i]) * 0x9e3779b97f4a7c15 + (sum >> 29);
    return sum;
}

static int store(uint64_t offset, const void *data, size_t bytes)
{
    return mirrorbus_lane_store(disk.lane, offset, data, bytes, NULL);
}

/* Makes `table` the one that counts. One that could not be stored never was: its place is that of the older of the two. */
static int store_table(struct table table)
{
    table.version = disk.table.version + 1;
    table.checksum = checksum(&table);
    int code = store(table.version % 2 * (TABLE_BYTES / 2), &table, sizeof table);
    if (code == MIRRORBUS_OK)
        disk.table = table;
    return code;
}

static int load_table(void)
{
    struct table found;
    memset(&disk.table, 0, sizeof disk.table);
    for (uint64_t i = 0; i < 2; i++) {
        int code = mirrorbus_region_read(disk.region, i * (TABLE_BYTES / 2), &found, sizeof found);
        if (code != MIRRORBUS_OK)
            return code;
        if (found.checksum == checksum(&found) && found.version > disk.table.version)
            disk.table = found;
    }
    return MIRRORBUS_OK;
}

/* What SQLite hands around. */
struct file {
    sqlite3_file base;
    int index;
};

static int index_of(sqlite3_file *file)
{
    return ((struct file *)file)->index;
}

static int file_close(sqlite3_file *file)
{
    (void)file;
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *target, int bytes, sqlite3_int64 offset)
{
    int i = index_of(file);
    uint64_t wanted = (uint64_t)bytes, at = (uint64_t)offset, size = disk.table.bytes[i];
    uint64_t there = at >= size ? 0 : size - at < wanted ? size - at : wanted;
    if (mirrorbus_region_read(disk.region, START[i] + at, target, there) != MIRRORBUS_OK)
        return SQLITE_IOERR_READ;
    memset((char *)target + there, 0, wanted - there);
    return there == wanted ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    int i = index_of(file);
    uint64_t end = (uint64_t)offset + (uint64_t)bytes;
    if (end > ROOM[i])
        return SQLITE_FULL;
    if (store(START[i] + (uint64_t)offset, data, (size_t)bytes) != MIRRORBUS_OK)
        return SQLITE_IOERR_WRITE;
    if (end <= disk.table.bytes[i])
        return SQLITE_OK;
    /* The bytes before the size that says that they are there. */
    struct table table = disk.table;
    table.bytes[i] = end;
    return store_table(table) == MIRRORBUS_OK ? SQLITE_OK : SQLITE_IOERR_WRITE;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    struct table table = disk.table;
    table.bytes[index_of(file)] = (uint64_t)bytes;
    return store_table(table) == MIRRORBUS_OK ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}

/* Everything so far, of both files, is where it has to be before anything that follows. */
static int file_sync(sqlite3_file *file, int flags)
{
    (void)file, (void)flags;
    return mirrorbus_lane_flush(disk.lane, disk.level, TIMEOUT) == MIRRORBUS_OK ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *bytes)
{
    *bytes = (sqlite3_int64)disk.table.bytes[index_of(file)];
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *file, int level)
{
    (void)file, (void)level;
    return SQLITE_OK;
}

static int file_is_reserved(sqlite3_file *file, int *is)
{
    (void)file;
    *is = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int what, void *argument)
{
    (void)file, (void)what, (void)argument;
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *file)
{
    (void)file;
    return 4096;
}

static int file_characteristics(sqlite3_file *file)
{
    (void)file;
    return 0;
}

static const sqlite3_io_methods METHODS = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_is_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_characteristics,
};

static int find(const char *name)
{
    for (int i = 0; i < FILES; i++)
        if (name != NULL && strcmp(name, NAMES[i]) == 0)
            return i;
    return -1;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *given)
{
    (void)vfs;
    int i = find(name);
    file->pMethods = NULL;
    if (i < 0 || (!disk.table.exists[i] && !(flags & SQLITE_OPEN_CREATE)))
        return SQLITE_CANTOPEN;
    if (!disk.table.exists[i]) {
        struct table table = disk.table;
        table.exists[i] = 1;
        table.bytes[i] = 0;
        if (store_table(table) != MIRRORBUS_OK)
            return SQLITE_CANTOPEN;
    }
    ((struct file *)file)->index = i;
    file->pMethods = &METHODS;
    if (given != NULL)
        *given = flags;
    return SQLITE_OK;
}

/* That the journal is gone is what commits a transaction: it is waited for, asked or not. */
static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs, (void)sync;
    int i = find(name);
    if (i < 0 || !disk.table.exists[i])
        return SQLITE_IOERR_DELETE_NOENT;
    struct table table = disk.table;
    table.exists[i] = 0;
    table.bytes[i] = 0;
    return store_table(table) == MIRRORBUS_OK ? file_sync(NULL, 0) : SQLITE_IOERR_DELETE;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *there)
{
    (void)vfs, (void)flags;
    int i = find(name);
    *there = i >= 0 && disk.table.exists[i];
    return SQLITE_OK;
}

static int vfs_full_name(sqlite3_vfs *vfs, const char *name, int bytes, char *target)
{
    (void)vfs;
    snprintf(target, (size_t)bytes, "%s", name);
    return SQLITE_OK;
}

/* Clock and random numbers are the system's. */
static sqlite3_vfs *usual(void)
{
    return sqlite3_vfs_find("unix");
}

static int vfs_random(sqlite3_vfs *vfs, int bytes, char *target)
{
    (void)vfs;
    return usual()->xRandomness(usual(), bytes, target);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return usual()->xSleep(usual(), microseconds);
}

static int vfs_time(sqlite3_vfs *vfs, double *days)
{
    (void)vfs;
    return usual()->xCurrentTime(usual(), days);
}

static int vfs_error(sqlite3_vfs *vfs, int bytes, char *target)
{
    (void)vfs;
    return snprintf(target, (size_t)bytes, "%s", mirrorbus_error_text());
}

static sqlite3_vfs VFS = {
    .iVersion = 1,
    .szOsFile = sizeof(struct file),
    .mxPathname = 64,
    .zName = "mirrorbus",
    .xOpen = vfs_open,
    .xDelete = vfs_delete,
    .xAccess = vfs_access,
    .xFullPathname = vfs_full_name,
    .xRandomness = vfs_random,
    .xSleep = vfs_sleep,
    .xCurrentTime = vfs_time,
    .xGetLastError = vfs_error,
};

static void check(int code, const char *what)
{
    if (code == MIRRORBUS_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, mirrorbus_code_name(code), mirrorbus_error_text());
    exit(1);
}

static void sql(sqlite3 *db, const char *text)
{
    char *error = NULL;
    if (sqlite3_exec(db, text, NULL, NULL, &error) != SQLITE_OK) {
        fprintf(stderr, "%s: %s (%s)\n", text, error, mirrorbus_error_text());
        exit(1);
    }
}

/* The first value that a query gives. */
static long long ask(sqlite3 *db, const char *query, char *text, size_t bytes)
{
    sqlite3_stmt *statement = NULL;
    long long number = -1;
    if (sqlite3_prepare_v2(db, query, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        number = sqlite3_column_int64(statement, 0);
        if (text != NULL)
            snprintf(text, bytes, "%s", (const char *)sqlite3_column_text(statement, 0));
    } else {
        fprintf(stderr, "%s: %s\n", query, sqlite3_errmsg(db));
        exit(1);
    }
    sqlite3_finalize(statement);
    return number;
}

static void open_disk(const char *url, const char *key, int is_new)
{
    mirrorbus_region_options options = {.size = sizeof options};
    options.url = url;
    options.key_file = key;
    options.bytes = REGION_BYTES;
    options.attach = is_new ? MIRRORBUS_ATTACH_PUSH : MIRRORBUS_ATTACH_PULL;
    options.lock = MIRRORBUS_LOCK_TRY;
    /* The holder may not have seen yet that the one before is gone. */
    int code = MIRRORBUS_E_REFUSED;
    for (int tries = 0; code == MIRRORBUS_E_REFUSED && tries < 100; tries++) {
        if (tries > 0)
            sqlite3_sleep(20);
        code = mirrorbus_region_open(&options, &disk.region);
    }
    check(code, "region");
    check(mirrorbus_lane_open(disk.region, NULL, &disk.lane), "lane");
    check(load_table(), "table");
}

/* Transactions, each of which is told when it is committed. */
static void write_some(sqlite3 *db, long long count)
{
    long long next = ask(db, "SELECT coalesce(max(n), 0) + 1 FROM entry", NULL, 0);
    for (long long n = next; n < next + count; n++) {
        char text[160];
        snprintf(text, sizeof text,
                 "BEGIN; INSERT INTO entry VALUES (%lld, hex(randomblob(%lld))); UPDATE total SET n = %lld; COMMIT",
                 n, 1 + n % 700, n);
        sql(db, text);
        int bytes = snprintf(text, sizeof text, "%lld\n", n);
        if (write(STDOUT_FILENO, text, (size_t)bytes) != bytes)
            exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: sqlite_vfs URL KEYFILE acked|durable new|check|write [COUNT]\n");
        return 2;
    }
    const char *what = argv[4];
    disk.level = strcmp(argv[3], "durable") == 0 ? MIRRORBUS_DURABLE : MIRRORBUS_ACKED;
    open_disk(argv[1], argv[2], strcmp(what, "new") == 0);
    sqlite3 *db = NULL;
    sqlite3_vfs_register(&VFS, 0);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    if (sqlite3_open_v2(NAMES[0], &db, flags, VFS.zName) != SQLITE_OK) {
        fprintf(stderr, "%s\n", sqlite3_errmsg(db));
        return 1;
    }
    sql(db, "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY");
    if (strcmp(what, "new") == 0) {
        sql(db, "CREATE TABLE entry (n INTEGER PRIMARY KEY, data TEXT); CREATE TABLE total (n INTEGER); "
                "INSERT INTO total VALUES (0)");
    } else if (strcmp(what, "write") == 0) {
        write_some(db, argc > 5 ? atoll(argv[5]) : 1000);
    } else {
        char verdict[256];
        ask(db, "PRAGMA integrity_check", verdict, sizeof verdict);
        printf("%s %lld %lld %lld\n", verdict, ask(db, "SELECT count(*) FROM entry", NULL, 0),
               ask(db, "SELECT coalesce(max(n), 0) FROM entry", NULL, 0), ask(db, "SELECT n FROM total", NULL, 0));
    }
    sqlite3_close(db);
    check(mirrorbus_lane_close(disk.lane), "close");
    check(mirrorbus_region_close(disk.region), "close");
    return 0;
}
