/* Life of a partition. */
#include "hv_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLICE_US = 50 }; /* TLFS "Hypercall continuation" */

static void check_cpu(const struct hv_cpu *cpu)
{
	assert(cpu->scontrol <= 1);
	for (unsigned n = 0; n < HV_SINTS; n++) {
		assert(hv_is_sint(cpu, cpu->sint[n]));
		assert(cpu->queue[n].count <= QUEUE_MESSAGES &&
		       cpu->queue[n].first < QUEUE_MESSAGES);
	}
	for (unsigned n = 0; n < HV_TIMERS; n++)
		assert(hv_is_timer(cpu, &cpu->timer[n]));
}

void check_partition(const struct hv_partition *partition)
{
	for (uint32_t n = 0; n < partition->host->cpus; n++)
		check_cpu(&partition->cpu[n]);
	for (unsigned n = 0; n < RINGS; n++)
		check_packet_ring(partition, n);
	check_work(partition);
}

struct hv_partition *hv_partition_create(const struct hv_host *host)
{
	struct hv_partition *partition = calloc(1, sizeof(*partition));

	assert(host->get_state && host->raise && host->place_overlay && host->lock && host->memory);
	assert(host->cpus && host->cpus <= X86_MAX_PROCESSORS && host->tsc_hz);
	if (!partition)
		return NULL;
	hv_check_calls();
	partition->host = host;
	partition->umbra_newest = UMBRA_NEWEST;
	partition->slice_tsc = host->tsc_hz / 1000000 * SLICE_US;
	pthread_cond_init(&partition->work_ready, NULL);
	pthread_cond_init(&partition->work_idle, NULL);
	for (uint32_t n = 0; n < host->cpus; n++) { /* of others no page is touched */
		partition->cpu[n].partition = partition;
		partition->cpu[n].index = n;
		for (int sint = 0; sint < HV_SINTS; sint++)
			partition->cpu[n].sint[sint] = 0x10000;
	}
	hv_write_hypercall_page(partition);
	if (hv_has(partition, HV_BASE) && hv_has(partition, HV_UMBRA)) {
		hv_write_info_page(partition);
		host->place_overlay(host->context, OVERLAY_INFO, HV_INFO_GPA, true);
	}
	return partition;
}

void hv_partition_destroy(struct hv_partition *partition) { free(partition); }

struct hv_cpu *hv_partition_cpu(struct hv_partition *partition, uint32_t index)
{
	assert(index < X86_MAX_PROCESSORS);
	return &partition->cpu[speculation_bound(index, X86_MAX_PROCESSORS)];
}

size_t hv_statistics(const struct hv_partition *partition, char *text, size_t bytes)
{
	int n = snprintf(
		text, bytes,
		"hv: hypercalls %lu, yields %lu, refused-registers %lu\nrefused calls by status:",
		partition->calls, partition->yields, partition->bad_msrs);
	size_t used = n < 0 ? 0 : (size_t)n;

	for (unsigned status = 0; status < HV_STATUSES && used < bytes; status++)
		if (partition->refused[status])
			used += (size_t)snprintf(text + used, bytes - used, " %#x: %lu", status,
						 partition->refused[status]);
	if (used < bytes)
		used += (size_t)snprintf(text + used, bytes - used, "\n");
	return used < bytes ? used : bytes - 1;
}

/* ---- the unit ---- */

static void unit_run(void *self) { hv_work_run(self); }
static void unit_pause(void *self) { hv_work_hold(self); }
static void unit_resume(void *self) { hv_work_go_on(self); }
static void unit_forked(void *self) { hv_work_forked(self); }
static void unit_stop(void *self) { hv_work_stop(self); }
static void unit_destroy(void *self) { hv_partition_destroy(self); }
static void unit_archive(struct archive *archive, void *self) { hv_archive(archive, self); }
static void unit_restored(void *self) { hv_restored(self); }
static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	return hv_statistics(self, text, bytes);
}

const struct unit_ops hv_unit = {
	.name = "partition", .section = UNIT_SECTION('H', 'V', ' ', ' '), .run = unit_run,
	.pause = unit_pause, .resume = unit_resume,
	.forked = unit_forked, .stop = unit_stop, .destroy = unit_destroy, .archive = unit_archive,
	.restored = unit_restored, .statistics = unit_statistics,
};
