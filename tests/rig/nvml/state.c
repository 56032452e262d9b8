/* The state file, and what every call of the library begins with. */
#define _GNU_SOURCE
#include "stub.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

device devices[GPUS_MAX][SLICES_MAX + 1];
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
int initialized;

static char *text;
static struct line { const char *key, *value; } *lines;
static int line_count;

void read_state(void) {
    const char *path = getenv("USANCE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    struct stat status;
    line_count = 0;
    if (!file || fstat(fileno(file), &status)) return;
    free(text);
    free(lines);
    text = calloc(1, status.st_size + 1);
    lines = calloc(status.st_size / 2 + 1, sizeof *lines);
    text[fread(text, 1, status.st_size, file)] = 0;
    fclose(file);
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *space = strchr(line, ' ');
        if (!space) continue;
        *space = 0;
        lines[line_count++] = (struct line){ line, space + 1 };
    }
}

const char *find(const char *format, ...) {
    char key[KEY_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(key, sizeof key, format, arguments);
    va_end(arguments);
    for (int i = 0; i < line_count; i++)
        if (!strcmp(lines[i].key, key)) return lines[i].value;
    return NULL;
}

const char *find_of(const device *d, const char *key) {
    const char *value = NULL;
    if (d->slice >= 0) value = find("gpu.%d.slice.%d.%s", d->gpu, d->slice, key);
    return value ? value : find("gpu.%d.%s", d->gpu, key);
}

result begin(const char *function, const device *d) {
    pthread_mutex_lock(&lock);
    read_state();
    const char *value;
    long delay_ms = 0;
    result answer = SUCCESS;
    if ((value = find("delay_ms.%s", function))) delay_ms = atol(value);
    if (d && (value = find("gpu.%d.delay_ms", d->gpu))) delay_ms = atol(value);
    if ((value = find("error.%s", function))) answer = atoi(value);
    else if (!initialized && strcmp(function, "nvmlInitWithFlags")) answer = UNINITIALIZED;
    else if (d && ((value = find("gpu.%d.error.%s", d->gpu, function)) || (value = find("gpu.%d.error", d->gpu))))
        answer = atoi(value);
    pthread_mutex_unlock(&lock);
    if (delay_ms) nanosleep(&(struct timespec){ delay_ms / 1000, delay_ms % 1000 * 1000000L }, NULL);
    return answer;
}

result number_of(const device *d, const char *key, ull *out) {
    pthread_mutex_lock(&lock);
    const char *value = find_of(d, key);
    if (value) *out = strtoull(value, NULL, 0);
    pthread_mutex_unlock(&lock);
    return value ? SUCCESS : NOT_SUPPORTED;
}

static result copy(const char *value, char *out, uint size) {
    if (!value) return NOT_SUPPORTED;
    if (strlen(value) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}

result text_of(const device *d, const char *key, char *out, uint size) {
    pthread_mutex_lock(&lock);
    result answer = copy(find_of(d, key), out, size);
    pthread_mutex_unlock(&lock);
    return answer;
}

result indexed_of(const device *d, const char *key, uint index, ull *out) {
    char name[KEY_BYTES];
    snprintf(name, sizeof name, "%s.%u", key, index);
    return number_of(d, name, out);
}

uint gpu_count(void) {
    pthread_mutex_lock(&lock);
    const char *value = find("count");
    uint count = value ? (uint)atoi(value) : 0;
    pthread_mutex_unlock(&lock);
    return count < GPUS_MAX ? count : GPUS_MAX;
}

result system_text(const char *key, char *out, uint size) {
    pthread_mutex_lock(&lock);
    result answer = copy(find("%s", key), out, size);
    pthread_mutex_unlock(&lock);
    return answer;
}

int event_line(int index, struct event_line *out) {
    if (index >= line_count) return 0;
    if (strcmp(lines[index].key, "event")) return -1;
    int got = sscanf(lines[index].value, "%ld %d %llu %llu %u", &out->sequence, &out->gpu, &out->type, &out->data,
                     &out->gpu_instance);
    return got == 5 && out->gpu >= 0 && out->gpu < GPUS_MAX ? 1 : -1;
}
