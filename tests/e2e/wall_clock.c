/* Preloaded, it puts the wall clock forward by the seconds that stand in the file named by TEST_CLOCK (eight bytes, in the
   machine's order), at whatever moment they change. All other clocks, and every wait, are as they were.

   No headers: gcc alone has none. What is called here is resolved when the program is loaded. */

struct timespec { long s, ns; };
struct timeval { long s, us; };

extern long syscall(long number, ...);
extern char *getenv(const char *name);
extern int open(const char *path, int flags, ...);
extern int close(int descriptor);
extern void *mmap(void *at, unsigned long bytes, int protection, int flags, int descriptor, long offset);

#if defined(__x86_64__)
enum { CLOCK_GETTIME = 228 };
#elif defined(__aarch64__)
enum { CLOCK_GETTIME = 113 };
#endif
enum { REALTIME = 0, REALTIME_COARSE = 5, O_RDONLY_ = 0, PROT_READ_ = 1, MAP_SHARED_ = 1 };

static const long none = 0;
static const volatile long *ahead = &none;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TEST_CLOCK");
    int descriptor = path ? open(path, O_RDONLY_) : -1;
    if (descriptor < 0)
        return;
    void *shown = mmap(0, sizeof *ahead, PROT_READ_, MAP_SHARED_, descriptor, 0);
    close(descriptor);
    if (shown != (void *)-1)
        ahead = shown;
}

int clock_gettime(int clock, struct timespec *now)
{
    int result = (int)syscall(CLOCK_GETTIME, clock, now);
    if (result == 0 && (clock == REALTIME || clock == REALTIME_COARSE))
        now->s += *ahead;
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(REALTIME, &exact);
    now->s = exact.s;
    now->us = exact.ns / 1000;
    return 0;
}

long time(long *now)
{
    struct timespec exact;
    clock_gettime(REALTIME, &exact);
    if (now)
        *now = exact.s;
    return exact.s;
}
