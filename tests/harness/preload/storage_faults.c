/* Storage that fails by rule, put before the C library with LD_PRELOAD.
 *
 * The file named by STORAGE_FAULTS holds one rule, read again at every call, so that a test can arm
 * it in the middle of a run; an empty or missing file means none:
 *
 *     CALL SUFFIX ACTION NTH MS
 *
 * CALL    sync (fsync, fdatasync) or write (write, pwrite, writev)
 * SUFFIX  of the path of the file, such as .log; * for every file
 * ACTION  eio     the call fails with EIO; a sync also loses what was written since the last one,
 *                 as a kernel does that marks the pages clean
 *         enospc  the call fails with ENOSPC
 *         lie     the call does nothing and succeeds
 *         slow    the call takes MS milliseconds longer
 * NTH     the matching call since the rule was written that is hit, from 1; 0: every one
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { NONE, FAIL_EIO, FAIL_ENOSPC, LIE, SLOW };

#define RULE_MAX 256
#define DESCRIPTORS_MAX 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char rule_seen[RULE_MAX];
static long matches;
/* By descriptor: the size up to which the file was synced. */
static off_t synced_size[DESCRIPTORS_MAX];

static int read_rule(char *text)
{
    const char *path = getenv("STORAGE_FAULTS");
    if (!path)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, RULE_MAX - 1);
    close(fd);
    if (length <= 0)
        return 0;
    text[length] = 0;
    return 1;
}

static int has_suffix(int fd, const char *suffix)
{
    char link[64], path[4096];
    if (!strcmp(suffix, "*"))
        return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    size_t of_suffix = strlen(suffix);
    return (size_t)length >= of_suffix && !strcmp(path + length - of_suffix, suffix);
}

static enum action hit(int fd, const char *call, long *ms)
{
    char text[RULE_MAX], wanted[16], suffix[64], action[16];
    long nth;
    int saved = errno, due;
    if (fd <= 2 || !read_rule(text)
        || sscanf(text, "%15s %63s %15s %ld %ld", wanted, suffix, action, &nth, ms) != 5
        || strcmp(wanted, call) || !has_suffix(fd, suffix)) {
        errno = saved;
        return NONE;
    }
    pthread_mutex_lock(&lock);
    if (strcmp(text, rule_seen)) {
        strcpy(rule_seen, text);
        matches = 0;
    }
    matches++;
    due = nth == 0 || matches == nth;
    pthread_mutex_unlock(&lock);
    errno = saved;
    if (!due)
        return NONE;
    if (!strcmp(action, "eio"))
        return FAIL_EIO;
    if (!strcmp(action, "enospc"))
        return FAIL_ENOSPC;
    return !strcmp(action, "lie") ? LIE : SLOW;
}

static int on_sync(int fd, int (*real)(int))
{
    long ms = 0;
    struct stat about;
    enum action action = hit(fd, "sync", &ms);
    if (action == FAIL_EIO || action == FAIL_ENOSPC) {
        if (fd < DESCRIPTORS_MAX && ftruncate(fd, synced_size[fd]))
            abort();
        errno = action == FAIL_EIO ? EIO : ENOSPC;
        return -1;
    }
    if (action == LIE)
        return 0;
    if (action == SLOW)
        usleep(ms * 1000);
    /* Measured before: what is written meanwhile may not be covered. */
    int known = !fstat(fd, &about);
    int result = real(fd);
    if (!result && known && fd < DESCRIPTORS_MAX)
        synced_size[fd] = about.st_size;
    return result;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int fsync(int fd)
{
    REAL(fsync);
    return on_sync(fd, real);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    return on_sync(fd, real);
}

/* Returns 1 if the call is to go on, 0 if it is to return *result. */
static int may_write(int fd, size_t size, ssize_t *result)
{
    long ms = 0;
    switch (hit(fd, "write", &ms)) {
    case FAIL_EIO:
        errno = EIO;
        *result = -1;
        return 0;
    case FAIL_ENOSPC:
        errno = ENOSPC;
        *result = -1;
        return 0;
    case LIE:
        *result = (ssize_t)size;
        return 0;
    case SLOW:
        usleep(ms * 1000);
        return 1;
    default:
        return 1;
    }
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    ssize_t result;
    return may_write(fd, size, &result) ? real(fd, data, size) : result;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    REAL(pwrite);
    ssize_t result;
    return may_write(fd, size, &result) ? real(fd, data, size, offset) : result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    REAL(pwrite64);
    ssize_t result;
    return may_write(fd, size, &result) ? real(fd, data, size, offset) : result;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    size_t size = 0;
    ssize_t result;
    for (int part = 0; part < count; part++)
        size += parts[part].iov_len;
    return may_write(fd, size, &result) ? real(fd, parts, count) : result;
}

/* A descriptor is used again: nothing of the new file was synced. */
int close(int fd)
{
    REAL(close);
    if (fd >= 0 && fd < DESCRIPTORS_MAX)
        synced_size[fd] = 0;
    return real(fd);
}
