/*
 * Makes calls on files fail, for a program that is started with this library in LD_PRELOAD.
 *
 * The rules are in the file that $FAULTS names, one rule a line. They are read again whenever another file is put in
 * the place of that file:
 *
 *     CALL SUFFIX SKIP COUNT ACTION
 *
 * CALL is `open`, `read`, `write`, `sync` or `truncate`, or `start` for the start of the program. SUFFIX is the end of
 * the path of the file, or `*`.
 * A rule passes over the first SKIP calls that match, and takes the COUNT calls after them; a COUNT of -1 takes all
 * of them. ACTION is the number of an error, `short` (half of the bytes are written), `kill` (the process dies before
 * the call), `kill-after` (the process dies after the call) or `nocldwait` (the process gives its SIGCHLD the flag
 * SA_NOCLDWAIT, and the call goes on). The first rule that takes a call decides.
 *
 *     room FOLDER BYTES -1 ERROR
 *
 * The files in FOLDER have room for BYTES in all: a write that needs more fails with ERROR, and statvfs(3) returns the
 * room that is left.
 *
 * Each call that a rule took is a line in the file $FAULTS.hits.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define RULES_MAX 32
#define SHORT (-1)
#define KILL (-2)
#define KILL_AFTER (-3)
#define NOCLDWAIT (-4)

struct rule {
    char call[16];
    char suffix[128];
    long skip;
    long count;
    int action;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static int rule_count;
static ino_t loaded;
static struct timespec loaded_at;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The calls below go past the functions that this library replaces. */

static void load(const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0) {
        rule_count = 0;
        loaded = 0;
        return;
    }
    if (found.st_ino == loaded && found.st_mtim.tv_sec == loaded_at.tv_sec
        && found.st_mtim.tv_nsec == loaded_at.tv_nsec)
        return;
    loaded = found.st_ino;
    loaded_at = found.st_mtim;
    rule_count = 0;
    char text[8192];
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0)
        return;
    long size = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    text[size > 0 ? size : 0] = 0;
    char *rest = text, *line;
    while (rule_count < RULES_MAX && (line = strsep(&rest, "\n")) != NULL) {
        struct rule rule;
        char action[16];
        if (sscanf(line, "%15s %127s %ld %ld %15s", rule.call, rule.suffix, &rule.skip, &rule.count,
                   action) != 5)
            continue;
        if (strcmp(action, "short") == 0)
            rule.action = SHORT;
        else if (strcmp(action, "kill") == 0)
            rule.action = KILL;
        else if (strcmp(action, "kill-after") == 0)
            rule.action = KILL_AFTER;
        else if (strcmp(action, "nocldwait") == 0)
            rule.action = NOCLDWAIT;
        else
            rule.action = atoi(action);
        rules[rule_count++] = rule;
    }
}

static int ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), end = strlen(suffix);
    return strcmp(suffix, "*") == 0
        || (length >= end && strcmp(text + length - end, suffix) == 0);
}

static void note(const char *rules_path, const char *call, const char *path)
{
    char name[PATH_MAX], line[PATH_MAX + 32];
    snprintf(name, sizeof name, "%s.hits", rules_path);
    int file = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0)
        return;
    int size = snprintf(line, sizeof line, "%s %s\n", call, path);
    syscall(SYS_write, file, line, (size_t)size);
    syscall(SYS_close, file);
}

static void name_of(int fd, char *name, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, size - 1);
    name[length > 0 ? length : 0] = 0;
}

static void lose_ends(void)
{
    struct sigaction action;
    sigaction(SIGCHLD, NULL, &action);
    action.sa_flags |= SA_NOCLDWAIT;
    sigaction(SIGCHLD, &action, NULL);
}

/* Returns the action for a call; 0 if the call is to be left alone. */
static int fate(const char *call, int fd, const char *path)
{
    const char *rules_path = getenv("FAULTS");
    if (rules_path == NULL)
        return 0;
    int saved = errno, action = 0;
    pthread_mutex_lock(&lock);
    load(rules_path);
    char name[PATH_MAX] = "";
    for (int n = 0; n < rule_count; n++) {
        struct rule *rule = &rules[n];
        if (strcmp(rule->call, call) != 0 || rule->count == 0)
            continue;
        if (path == NULL && name[0] == 0)
            name_of(fd, name, sizeof name);
        if (!ends_with(path != NULL ? path : name, rule->suffix))
            continue;
        if (rule->skip > 0) {
            rule->skip--;
            continue;
        }
        if (rule->count > 0)
            rule->count--;
        action = rule->action;
        note(rules_path, call, path != NULL ? path : name);
        break;
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    if (action == KILL)
        kill(getpid(), SIGKILL);
    if (action == NOCLDWAIT)
        lose_ends();
    return action;
}

__attribute__((constructor)) static void start(void) { fate("start", -1, "program"); }

/* Returns how many bytes the files of a folder have. */
static long used(const char *folder)
{
    DIR *entries = opendir(folder);
    struct dirent *entry;
    long bytes = 0;
    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        struct stat found;
        if (fstatat(dirfd(entries), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0
            && S_ISREG(found.st_mode))
            bytes += found.st_size;
    }
    if (entries != NULL)
        closedir(entries);
    return bytes;
}

/* Returns the room that is left at a path, and the error for a write that needs more; -1 if no rule matches. */
static long room(const char *path, int *error)
{
    const char *rules_path = getenv("FAULTS");
    long left = -1;
    if (rules_path == NULL)
        return left;
    pthread_mutex_lock(&lock);
    load(rules_path);
    for (int n = 0; n < rule_count && left < 0; n++) {
        struct rule *rule = &rules[n];
        size_t length = strlen(rule->suffix);
        if (strcmp(rule->call, "room") != 0 || strncmp(path, rule->suffix, length) != 0
            || (path[length] != '/' && path[length] != 0))
            continue;
        long bytes = used(rule->suffix);
        left = bytes < rule->skip ? rule->skip - bytes : 0;
        *error = rule->action;
    }
    pthread_mutex_unlock(&lock);
    return left;
}

/* Returns whether a write has no room; errno is the error then. */
static int is_too_much(int fd, size_t size, off_t at)
{
    const char *rules_path = getenv("FAULTS");
    if (rules_path == NULL)
        return 0;
    int saved = errno, error = 0;
    char name[PATH_MAX];
    struct stat found;
    name_of(fd, name, sizeof name);
    long left = room(name, &error);
    int refused = left >= 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode)
        && at + (long)size - (long)found.st_size > left;
    if (refused)
        note(rules_path, "room", name);
    errno = refused ? error : saved;
    return refused;
}

#define STATVFS(name, type)                                                                        \
    int name(const char *path, struct type *found)                                                 \
    {                                                                                              \
        int error, result = REAL(name)(path, found);                                               \
        long left = result == 0 ? room(path, &error) : -1;                                         \
        if (left >= 0)                                                                             \
            found->f_bfree = found->f_bavail = (unsigned long)left / found->f_frsize;              \
        return result;                                                                             \
    }

STATVFS(statvfs, statvfs)
STATVFS(statvfs64, statvfs64)

static int sync_as(const char *call, int fd, int (*real)(int))
{
    int action = fate(call, fd, NULL);
    if (action > 0) {
        errno = action;
        return -1;
    }
    int result = real(fd);
    if (action == KILL_AFTER)
        kill(getpid(), SIGKILL);
    return result;
}

int fsync(int fd) { return sync_as("sync", fd, REAL(fsync)); }
int fdatasync(int fd) { return sync_as("sync", fd, REAL(fdatasync)); }

static size_t part(int action, size_t size) { return action == SHORT && size > 1 ? size / 2 : size; }

static ssize_t done(int action, ssize_t result)
{
    if (action == KILL_AFTER)
        kill(getpid(), SIGKILL);
    return result;
}

#define BEGIN(call, fd)                                                                            \
    int action = fate(call, fd, NULL);                                                             \
    if (action > 0) {                                                                              \
        errno = action;                                                                            \
        return -1;                                                                                 \
    }

ssize_t write(int fd, const void *bytes, size_t size)
{
    BEGIN("write", fd)
    if (is_too_much(fd, size, lseek(fd, 0, SEEK_CUR)))
        return -1;
    return done(action, syscall(SYS_write, fd, bytes, part(action, size)));
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at)
{
    BEGIN("write", fd)
    if (is_too_much(fd, size, at))
        return -1;
    return done(action, REAL(pwrite)(fd, bytes, part(action, size), at));
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at)
{
    BEGIN("write", fd)
    if (is_too_much(fd, size, at))
        return -1;
    return done(action, REAL(pwrite64)(fd, bytes, part(action, size), at));
}

ssize_t pread(int fd, void *bytes, size_t size, off_t at)
{
    BEGIN("read", fd)
    return done(action, REAL(pread)(fd, bytes, part(action, size), at));
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t at)
{
    BEGIN("read", fd)
    return done(action, REAL(pread64)(fd, bytes, part(action, size), at));
}

int ftruncate(int fd, off_t size)
{
    BEGIN("truncate", fd)
    return (int)done(action, REAL(ftruncate)(fd, size));
}

int ftruncate64(int fd, off64_t size)
{
    BEGIN("truncate", fd)
    return (int)done(action, REAL(ftruncate64)(fd, size));
}

static int open_as(int folder, const char *path, int flags, mode_t mode)
{
    int action = fate("open", -1, path);
    if (action > 0) {
        errno = action;
        return -1;
    }
    return (int)done(action, syscall(SYS_openat, folder, path, flags, mode));
}

#define MODE(flags)                                                                                \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = (mode_t)va_arg(rest, int);                                                          \
        va_end(rest);                                                                              \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags)
    return open_as(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags)
    return open_as(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    MODE(flags)
    return open_as(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    MODE(flags)
    return open_as(folder, path, flags | O_LARGEFILE, mode);
}
