/* Lists of processes, MIG slices, and events. */
#define _GNU_SOURCE
#include "stub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma GCC visibility push(default)

/* ---- processes: "PID:BYTES,PID:BYTES" ---- */

typedef struct { uint pid; ull bytes; uint gpu_instance, compute_instance; } process;
static result processes(const device *d, const char *key, uint *count, process *out) {
    char list[LIST_BYTES] = "";
    result answer = text_of(d, key, list, sizeof list);
    if (answer && answer != NOT_SUPPORTED) return answer;
    uint room = *count, have = 0;
    char *rest = NULL;
    for (char *item = strtok_r(list, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        process each = { 0, ~0ULL, ~0u, ~0u };
        sscanf(item, "%u:%llu", &each.pid, &each.bytes);
        if (out && have < room) out[have] = each;
        have++;
    }
    *count = have;
    return have > (out ? room : 0) ? INSUFFICIENT_SIZE : SUCCESS;
}
result nvmlDeviceGetComputeRunningProcesses_v3(device *d, uint *count, process *out) {
    BEGIN(d);
    return processes(d, "compute_processes", count, out);
}
result nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, uint *count, process *out) {
    BEGIN(d);
    return processes(d, "graphics_processes", count, out);
}

/* ---- MIG slices ---- */

result nvmlDeviceIsMigDeviceHandle(device *d, uint *out) { BEGIN(d); *out = d->slice >= 0; return SUCCESS; }
result nvmlDeviceGetMigDeviceHandleByIndex(device *d, uint index, device **out) {
    BEGIN(d);
    if (d->slice >= 0 || index >= SLICES_MAX) return INVALID_ARGUMENT;
    pthread_mutex_lock(&lock);
    const char *uuid = find("gpu.%d.slice.%u.uuid", d->gpu, index);
    pthread_mutex_unlock(&lock);
    if (!uuid) return NOT_FOUND;
    *out = &devices[d->gpu][index + 1];
    return SUCCESS;
}
result nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device *d, device **out) {
    BEGIN(d);
    if (d->slice < 0) return INVALID_ARGUMENT;
    *out = &devices[d->gpu][0];
    return SUCCESS;
}
#define INSTANCE(function, key) \
    result function(device *d, uint *out) { \
        BEGIN(d); \
        ull value; \
        result answer = d->slice < 0 ? NOT_SUPPORTED : number_of(d, key, &value); \
        if (!answer) *out = (uint)value; \
        return answer; \
    }
INSTANCE(nvmlDeviceGetGpuInstanceId, "gpu_instance")
INSTANCE(nvmlDeviceGetComputeInstanceId, "compute_instance")

/* ---- events: lines "event SEQUENCE GPU TYPE DATA GPU_INSTANCE", the sequence growing ---- */

typedef struct { device *d; ull type, data; uint gpu_instance, compute_instance; } event;
typedef struct { long seen; ull types[GPUS_MAX]; } event_set;

/* The first event after `seen` that the set waits for: its sequence, or 0. */
static long next_event(const event_set *set, event *out) {
    long next = 0;
    struct event_line line;
    for (int i = 0, kind; (kind = event_line(i, &line)); i++) {
        if (kind < 0 || !(set->types[line.gpu] & line.type)) continue;
        if (line.sequence <= set->seen || (next && line.sequence > next)) continue;
        next = line.sequence;
        *out = (event){ &devices[line.gpu][0], line.type, line.data, line.gpu_instance, ~0u };
    }
    return next;
}
static long last_event(void) {
    long last = 0;
    struct event_line line;
    for (int i = 0, kind; (kind = event_line(i, &line)); i++)
        if (kind > 0 && line.sequence > last) last = line.sequence;
    return last;
}
result nvmlEventSetCreate(event_set **out) {
    BEGIN(NULL);
    *out = calloc(1, sizeof **out);
    pthread_mutex_lock(&lock);
    (*out)->seen = last_event();
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
result nvmlDeviceRegisterEvents(device *d, ull types, event_set *set) {
    BEGIN(d);
    ull supported;
    result answer = number_of(d, "event_types", &supported);
    if (answer) return answer;
    if (types & ~supported) return NOT_SUPPORTED;
    set->types[d->gpu] |= types;
    return SUCCESS;
}
result nvmlEventSetWait_v2(event_set *set, event *out, uint timeout_ms) {
    BEGIN(NULL);
    for (uint waited_ms = 0;; waited_ms += EVENT_POLL_MS) {
        pthread_mutex_lock(&lock);
        read_state();
        long sequence = next_event(set, out);
        pthread_mutex_unlock(&lock);
        if (sequence) {
            set->seen = sequence;
            return SUCCESS;
        }
        if (waited_ms >= timeout_ms) return TIMEOUT;
        usleep(EVENT_POLL_MS * 1000);
    }
}
result nvmlEventSetFree(event_set *set) { BEGIN(NULL); free(set); return SUCCESS; }
