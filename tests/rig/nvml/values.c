/* The library, the system, handles, and what one reads of a GPU. */
#define _GNU_SOURCE
#include "stub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#pragma GCC visibility push(default)

/* ---- the library and the system ---- */

result nvmlInitWithFlags(uint flags) {
    (void)flags;
    BEGIN(NULL);
    pthread_mutex_lock(&lock);
    initialized++;
    for (int gpu = 0; gpu < GPUS_MAX; gpu++)
        for (int slice = -1; slice < SLICES_MAX; slice++) devices[gpu][slice + 1] = (device){ gpu, slice };
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
result nvmlShutdown(void) {
    BEGIN(NULL);
    pthread_mutex_lock(&lock);
    initialized--;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
const char *nvmlErrorString(result error) {
    static __thread char sentence[40];
    snprintf(sentence, sizeof sentence, "stand-in error %d", error);
    return sentence;
}

result nvmlSystemGetDriverVersion(char *out, uint size) { BEGIN(NULL); return system_text("driver", out, size); }
result nvmlSystemGetNVMLVersion(char *out, uint size) { BEGIN(NULL); return system_text("nvml", out, size); }
result nvmlSystemGetCudaDriverVersion_v2(int *out) {
    BEGIN(NULL);
    char version[16];
    result answer = system_text("cuda", version, sizeof version);
    if (!answer) *out = atoi(version);
    return answer;
}
result nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }

/* ---- handles ---- */

result nvmlDeviceGetCount_v2(uint *out) { BEGIN(NULL); *out = gpu_count(); return SUCCESS; }
result nvmlDeviceGetHandleByIndex_v2(uint index, device **out) {
    BEGIN(NULL);
    if (index >= gpu_count()) return INVALID_ARGUMENT;
    BEGIN(&devices[index][0]);
    *out = &devices[index][0];
    return SUCCESS;
}
static device *device_named(const char *key, const char *name) {
    device *found = NULL;
    uint count = gpu_count();
    pthread_mutex_lock(&lock);
    for (uint gpu = 0; gpu < count; gpu++)
        for (int slice = -1; slice < SLICES_MAX; slice++) {
            const char *value = slice < 0 ? find("gpu.%u.%s", gpu, key) : find("gpu.%u.slice.%d.%s", gpu, slice, key);
            if (value && !strcasecmp(value, name)) found = &devices[gpu][slice + 1];
        }
    pthread_mutex_unlock(&lock);
    return found;
}
#define HANDLE_BY(function, key) \
    result function(const char *name, device **out) { \
        BEGIN(NULL); \
        device *found = device_named(key, name); \
        if (!found) return NOT_FOUND; \
        BEGIN(found); \
        *out = found; \
        return SUCCESS; \
    }
HANDLE_BY(nvmlDeviceGetHandleByUUID, "uuid")
HANDLE_BY(nvmlDeviceGetHandleByPciBusId_v2, "pci_bus_id")

/* ---- plain values ---- */

#define TEXT(function, key) \
    result function(device *d, char *out, uint size) { BEGIN(d); return text_of(d, key, out, size); }
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")

#define NUMBER(function, type, key) \
    result function(device *d, type *out) { \
        BEGIN(d); \
        ull value; \
        result answer = number_of(d, key, &value); \
        if (!answer) *out = (type)value; \
        return answer; \
    }
NUMBER(nvmlDeviceGetMinorNumber, uint, "minor")
NUMBER(nvmlDeviceGetPowerUsage, uint, "power_mw")
NUMBER(nvmlDeviceGetEnforcedPowerLimit, uint, "power_limit_mw")
NUMBER(nvmlDeviceGetPowerManagementLimit, uint, "power_limit_mw")
NUMBER(nvmlDeviceGetTotalEnergyConsumption, ull, "energy_mj")
NUMBER(nvmlDeviceGetFanSpeed, uint, "fan_percent")
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, ull, "throttle_bits")
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, ull, "throttle_bits")
NUMBER(nvmlDeviceGetPerformanceState, uint, "pstate")
NUMBER(nvmlDeviceGetPersistenceMode, uint, "persistence_mode")
NUMBER(nvmlDeviceGetComputeMode, uint, "compute_mode")
NUMBER(nvmlDeviceGetDisplayActive, uint, "display_active")
NUMBER(nvmlDeviceGetArchitecture, uint, "architecture")
NUMBER(nvmlDeviceGetBrand, uint, "brand")
NUMBER(nvmlDeviceGetPcieReplayCounter, uint, "pcie_replays")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, uint, "pcie_generation")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, uint, "pcie_generation_max")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, uint, "pcie_width")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, uint, "pcie_width_max")
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, uint, "retired_pages_pending")
NUMBER(nvmlDeviceGetMaxMigDeviceCount, uint, "slices_max")
NUMBER(nvmlDeviceGetSupportedEventTypes, ull, "event_types")

#define INDEXED(function, key) \
    result function(device *d, uint index, uint *out) { \
        BEGIN(d); \
        ull value; \
        result answer = indexed_of(d, key, index, &value); \
        if (!answer) *out = (uint)value; \
        return answer; \
    }
INDEXED(nvmlDeviceGetTemperature, "temperature_c")
INDEXED(nvmlDeviceGetTemperatureThreshold, "temperature_threshold_c")
INDEXED(nvmlDeviceGetClockInfo, "clock_mhz")
INDEXED(nvmlDeviceGetMaxClockInfo, "clock_max_mhz")
INDEXED(nvmlDeviceGetPcieThroughput, "pcie_kib_per_s")
INDEXED(nvmlDeviceGetNvLinkState, "nvlink")

/* The same value twice: what is and what will be after the next reset. */
#define MODE(function, key) \
    result function(device *d, uint *current, uint *pending) { \
        BEGIN(d); \
        ull value; \
        result answer = number_of(d, key, &value); \
        if (!answer) *current = *pending = (uint)value; \
        return answer; \
    }
MODE(nvmlDeviceGetEccMode, "ecc_mode")
MODE(nvmlDeviceGetMigMode, "mig_mode")

result nvmlDeviceGetIndex(device *d, uint *out) { BEGIN(d); *out = (uint)d->gpu; return SUCCESS; }

result nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    BEGIN(d);
    char version[16];
    result answer = text_of(d, "compute_capability", version, sizeof version);
    if (answer) return answer;
    return sscanf(version, "%d.%d", major, minor) == 2 ? SUCCESS : NOT_SUPPORTED;
}
result nvmlDeviceGetTotalEccErrors(device *d, uint type, uint counter, ull *out) {
    BEGIN(d);
    char key[32];
    snprintf(key, sizeof key, "ecc_errors.%u", type);
    return indexed_of(d, key, counter, out);
}
result nvmlDeviceGetRemappedRows(device *d, uint *correctable, uint *uncorrectable, uint *pending, uint *failed) {
    BEGIN(d);
    char rows[64];
    result answer = text_of(d, "remapped_rows", rows, sizeof rows);
    if (answer) return answer;
    int got = sscanf(rows, "%u,%u,%u,%u", correctable, uncorrectable, pending, failed);
    return got == 4 ? SUCCESS : NOT_SUPPORTED;
}

/* Of all fields only the driver's advice: what would cure the GPU. */
enum { RECOVERY_ACTION = 230, UNSIGNED_INT = 1 };
typedef struct {
    uint field, scope;
    long long timestamp, latency_us;
    int type;
    result answer;
    union { uint number; ull wide; } value;
} field_value;
result nvmlDeviceGetFieldValues(device *d, int count, field_value *out) {
    BEGIN(d);
    for (int i = 0; i < count; i++) {
        ull value;
        out[i].answer = out[i].field == RECOVERY_ACTION ? number_of(d, "recovery_action", &value) : NOT_SUPPORTED;
        if (out[i].answer) continue;
        out[i].type = UNSIGNED_INT;
        out[i].value.number = (uint)value;
    }
    return SUCCESS;
}

typedef struct { uint version; int sensor, celsius; } temperature;
result nvmlDeviceGetTemperatureV(device *d, temperature *out) {
    BEGIN(d);
    ull value;
    result answer = indexed_of(d, "temperature_c", (uint)out->sensor, &value);
    if (!answer) out->celsius = (int)value;
    return answer;
}

typedef struct { uint gpu, memory; } utilization;
result nvmlDeviceGetUtilizationRates(device *d, utilization *out) {
    BEGIN(d);
    if (d->slice >= 0) return NOT_SUPPORTED;
    ull gpu, memory = 0;
    result answer = number_of(d, "utilization_percent", &gpu);
    if (answer) return answer;
    number_of(d, "memory_utilization_percent", &memory);
    *out = (utilization){ (uint)gpu, (uint)memory };
    return SUCCESS;
}

typedef struct { uint version; ull total, reserved, available, used; } memory_v2;
result nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *out) {
    BEGIN(d);
    ull total, used = 0, reserved = 0;
    result answer = number_of(d, "memory_bytes", &total);
    if (answer) return answer;
    number_of(d, "memory_used_bytes", &used);
    number_of(d, "memory_reserved_bytes", &reserved);
    *out = (memory_v2){ out->version, total, reserved, total - used - reserved, used };
    return SUCCESS;
}
typedef struct { ull total, available, used; } memory_v1;
result nvmlDeviceGetMemoryInfo(device *d, memory_v1 *out) {
    BEGIN(d);
    ull total, used = 0;
    result answer = number_of(d, "memory_bytes", &total);
    if (answer) return answer;
    number_of(d, "memory_used_bytes", &used);
    *out = (memory_v1){ total, total - used, used };
    return SUCCESS;
}

typedef struct {
    char bus_id_legacy[16];
    uint domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci;
result nvmlDeviceGetPciInfo_v3(device *d, pci *out) {
    BEGIN(d);
    memset(out, 0, sizeof *out);
    result answer = text_of(d, "pci_bus_id", out->bus_id, sizeof out->bus_id);
    if (answer) return answer;
    sscanf(out->bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%04x:%02x:%02x.0", out->domain & 0xffff,
             out->bus & 0xff, out->device & 0xff);
    return SUCCESS;
}
