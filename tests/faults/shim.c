/* Makes operations on files below one folder fail, or the process die, at a chosen one of them.
   Preloaded (LD_PRELOAD), so that it stands before every writer: Python's, Rust's, Pillow's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE = 2, SYNC = 4, RENAME = 8, FOLDER = 16, DELETE = 32, LOCK = 64 };
enum { ONCE = 0, FROM_THEN_ON = 1, SHORT = 2, KILL = 3 };

static char watched[PATH_MAX];
static size_t length;
static long at, count;
static int error, mode, kinds;

void fault_arm(const char *folder, long which, int number, int how, int of)
{
    strncpy(watched, folder, sizeof watched - 1);
    at = which, error = number, mode = how, kinds = of, count = 0;
    length = strlen(watched);
}

long fault_disarm(void)
{
    length = 0;
    return count;
}

static int below(int folder, const char *path)
{
    char whole[2 * PATH_MAX];
    if (!length)
        return 0;
    if (path && path[0] == '/')
        return !strncmp(path, watched, length);
    char link[64];
    ssize_t size;
    if (folder == AT_FDCWD)
        size = getcwd(whole, PATH_MAX) ? (ssize_t)strlen(whole) : -1;
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        size = readlink(link, whole, PATH_MAX);
    }
    if (size < 0)
        return 0;
    whole[size] = 0;
    return !strncmp(whole, watched, length);
}

/* 0: go on; 1: fail with `error`; 2: make it short. */
static int trip(int kind, int folder, const char *path)
{
    if (!(kind & kinds) || !below(folder, path))
        return 0;
    long now = count++;
    if (now == at && mode == KILL)
        kill(getpid(), SIGKILL);
    if (mode == SHORT)
        return now >= at && kind == WRITE ? 2 : 0;
    if (now == at || (now > at && mode == FROM_THEN_ON)) {
        errno = error;
        return 1;
    }
    return 0;
}

#define REAL(type, name, ...)                                  \
    static type (*real)(__VA_ARGS__);                          \
    if (!real)                                                 \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define OPEN(name)                                             \
    int name(const char *path, int flags, ...)                 \
    {                                                          \
        REAL(int, name, const char *, int, ...);               \
        va_list rest;                                          \
        va_start(rest, flags);                                 \
        mode_t bits = va_arg(rest, mode_t);                    \
        va_end(rest);                                          \
        if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && trip(CREATE, AT_FDCWD, path)) \
            return -1;                                         \
        return real(path, flags, bits);                        \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                           \
    int name(int folder, const char *path, int flags, ...)     \
    {                                                          \
        REAL(int, name, int, const char *, int, ...);          \
        va_list rest;                                          \
        va_start(rest, flags);                                 \
        mode_t bits = va_arg(rest, mode_t);                    \
        va_end(rest);                                          \
        if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && trip(CREATE, folder, path)) \
            return -1;                                         \
        return real(folder, path, flags, bits);                \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size)
{
    REAL(ssize_t, write, int, const void *, size_t);
    int what = trip(WRITE, file, NULL);
    return what == 1 ? -1 : real(file, data, what == 2 && size > 1 ? size / 2 : size);
}

ssize_t writev(int file, const struct iovec *parts, int number)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    int what = trip(WRITE, file, NULL);
    return what == 1 ? -1 : real(file, parts, what == 2 ? 1 : number);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t place)
{
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    return trip(WRITE, file, NULL) == 1 ? -1 : real(file, data, size, place);
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags)
{
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    return trip(WRITE, to, NULL) == 1 ? -1 : real(from, a, to, b, size, flags);
}

ssize_t sendfile64(int to, int from, off64_t *place, size_t size)
{
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
    return trip(WRITE, to, NULL) == 1 ? -1 : real(to, from, place, size);
}

int ftruncate64(int file, off64_t size)
{
    REAL(int, ftruncate64, int, off64_t);
    return trip(WRITE, file, NULL) == 1 ? -1 : real(file, size);
}

int fsync(int file)
{
    REAL(int, fsync, int);
    return trip(SYNC, file, NULL) ? -1 : real(file);
}

int fdatasync(int file)
{
    REAL(int, fdatasync, int);
    return trip(SYNC, file, NULL) ? -1 : real(file);
}

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    return trip(RENAME, AT_FDCWD, to) ? -1 : real(from, to);
}

int renameat(int a, const char *from, int b, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    return trip(RENAME, b, to) ? -1 : real(a, from, b, to);
}

int mkdir(const char *path, mode_t bits)
{
    REAL(int, mkdir, const char *, mode_t);
    struct stat known;
    if (!stat(path, &known)) /* as it would fail anyway */
        return real(path, bits);
    return trip(FOLDER, AT_FDCWD, path) ? -1 : real(path, bits);
}

int rmdir(const char *path)
{
    REAL(int, rmdir, const char *);
    return trip(DELETE, AT_FDCWD, path) ? -1 : real(path);
}

int unlink(const char *path)
{
    REAL(int, unlink, const char *);
    return trip(DELETE, AT_FDCWD, path) ? -1 : real(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    return trip(DELETE, folder, path) ? -1 : real(folder, path, flags);
}

int flock(int file, int operation)
{
    REAL(int, flock, int, int);
    return trip(LOCK, file, NULL) ? -1 : real(file, operation);
}
