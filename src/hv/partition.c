/* Life of a partition. */
#include "hv_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { SLICE_US = 50 }; /* TLFS "Hypercall continuation" */

struct hv_partition *hv_partition_create(const struct hv_host *host)
{
	struct hv_partition *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->host = host;
	p->umbra_newest = UMBRA_NEWEST;
	p->slice_tsc = host->tsc_hz / 1000000 * SLICE_US;
	pthread_cond_init(&p->work_ready, NULL);
	pthread_cond_init(&p->work_idle, NULL);
	for (uint32_t n = 0; n < HV_MAX_CPUS; n++) {
		p->cpu[n].partition = p;
		p->cpu[n].index = n;
		for (int sint = 0; sint < HV_SINTS; sint++)
			p->cpu[n].sint[sint] = 0x10000;
	}
	hv_write_hypercall_page(p);
	if (hv_has(p, HV_BASE) && hv_has(p, HV_UMBRA)) {
		hv_write_info_page(p);
		host->place_overlay(host->context, OVERLAY_INFO, HV_INFO_GPA, true);
	}
	return p;
}

void hv_partition_destroy(struct hv_partition *p) { free(p); }
struct hv_cpu *hv_partition_cpu(struct hv_partition *p, uint32_t index) { return &p->cpu[index]; }

size_t hv_statistics(const struct hv_partition *p, char *text, size_t bytes)
{
	int n = snprintf(
		text, bytes,
		"hypercalls %lu, yields %lu, refused registers %lu, refused calls by status:",
		p->calls, p->yields, p->bad_msrs);
	size_t used = n < 0 ? 0 : (size_t)n;

	for (unsigned s = 0; s < HV_STATUSES && used < bytes; s++)
		if (p->refused[s])
			used += (size_t)snprintf(text + used, bytes - used, " %#x: %lu", s,
						 p->refused[s]);
	if (used < bytes)
		used += (size_t)snprintf(text + used, bytes - used, "\n");
	return used < bytes ? used : bytes - 1;
}

/* ---- the unit ---- */

static void unit_run(void *self) { hv_work_run(self); }
static void unit_pause(void *self) { hv_work_hold(self); }
static void unit_resume(void *self) { hv_work_go_on(self); }
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
	.stop = unit_stop, .destroy = unit_destroy, .archive = unit_archive,
	.restored = unit_restored, .statistics = unit_statistics,
};
