/* A stand-in for NVIDIA's management library, libnvidia-ml.so.1: the part of its binary interface that
 * nvidia-ml-py calls, answered from a text file that a test rewrites at will. No GPU, no NVIDIA code.
 *
 * The file is $USANCE_NVML_STATE: lines "KEY VALUE", read anew by every call (so replace it by a rename).
 * state.py is its only writer and says what the keys mean. A value that is absent is answered with "not
 * supported", as a card does that lacks the sensor.
 */
#include <pthread.h>

typedef int result;
typedef unsigned int uint;
typedef unsigned long long ull;

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, TIMEOUT = 10,
};
enum { GPUS_MAX = 16, SLICES_MAX = 8, KEY_BYTES = 160, LIST_BYTES = 4096, EVENT_POLL_MS = 5 };

/* What a handle points at: a whole GPU (slice = -1) or one of its MIG slices. */
typedef struct { int gpu, slice; } device;
extern device devices[GPUS_MAX][SLICES_MAX + 1];

extern pthread_mutex_t lock;  /* hold it for what follows, down to event_line */
extern int initialized;
void read_state(void);
__attribute__((format(printf, 1, 2))) const char *find(const char *format, ...);
const char *find_of(const device *d, const char *key);  /* a slice's own value, else its GPU's */
struct event_line { long sequence; int gpu; ull type, data; uint gpu_instance; };
int event_line(int index, struct event_line *out);  /* 0 past the last line, -1 where the line is no event */

/* These take the lock themselves. Every call begins with BEGIN: the file anew, then the delay and the error
 * that the test wants. */
result begin(const char *function, const device *d);
#define BEGIN(d) do { result begun = begin(__func__, (d)); if (begun) return begun; } while (0)
result number_of(const device *d, const char *key, ull *out);
result indexed_of(const device *d, const char *key, uint index, ull *out);
result text_of(const device *d, const char *key, char *out, uint size);
result system_text(const char *key, char *out, uint size);
uint gpu_count(void);
