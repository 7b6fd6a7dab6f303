/*
 * A channel to another machine in what was forked or restored: what the guest is owed (invariant 7
 * of share_device.h), and how it is kept in a saved machine.
 */
#include "share_internal.h"

#include <assert.h>
#include <string.h>

#include "lib/archive.h"
#include "lib/check.h"

static void list_sent(const struct share *share, struct owed list[OWED], uint32_t *count)
{
	for (unsigned n = 0; n < share->ordered; n++) {
		const unsigned slot = share->order[(share->order_first + n) % SHARE_SEND_SLOTS];
		const enum share_packet_kind kind = share->packet[slot].kind;

		if (!share->sent[slot].wants_completion)
			continue;
		assert(*count < OWED);
		list[(*count)++] = (struct owed){
			.transaction = share->sent[slot].transaction,
			.completes = true,
			.answer.head = { .kind = share_message_of(kind), .status = SHARE_NO_PEER },
		};
	}
}

static void list_lends(const struct share *share, struct owed list[OWED], uint32_t *count)
{
	for (unsigned n = 0; n < LENDS; n++) {
		const struct lend *lend = &share->lends.lend[n];

		if (lend->state == LEND_FREE || !lend->wants_completion)
			continue;
		assert(*count < OWED);
		list[(*count)++] = (struct owed){
			.transaction = lend->transaction,
			.completes = true,
			.answer.head = { .kind = SHARE_END, .status = SHARE_DONE },
		};
	}
}

/* What the guest is owed where nobody goes on with what was; how many. */
static uint32_t list_owed(const struct share *share, struct owed list[OWED])
{
	uint32_t count = 0;

	for (unsigned n = 0; n < share->owed_count; n++)
		list[count++] = share->owed[(share->owed_first + n) % OWED];
	if (!share->is_open)
		return count;
	list_sent(share, list, &count);
	list_lends(share, list, &count);
	return count;
}

static void take_owed(struct share *share, const struct owed *list, uint32_t count)
{
	memcpy(share->owed, list, count * sizeof(list[0]));
	share->owed_first = 0;
	share->owed_count = count;
}

static void forget_lends(struct share *share)
{
	for (unsigned n = 0; n < LENDS; n++)
		if (share->lends.lend[n].state != LEND_FREE)
			lend_forget(&share->lends, &share->lends.lend[n]);
}

void share_forked(struct share *share)
{
	struct owed list[OWED];

	port_window_forked(share->window);
	take_owed(share, list, list_owed(share, list));
	forget_lends(share);
	share_reset_slots(share);
	slot_restart(share->client);
	share->epoch = share->memory->epoch;
	share->peer_epoch = share->had = 0;
	share->generation = share->serving = share->peer_word = 0;
	share_say_open(share, share->is_open);
	share->cut_off = share->peer_is_there = share->submitted = false;
	share->is_renewed = true;
	if (share->told_word)
		share->told_word = NO_PEERS_WORD;
	CHECK(check_share(share));
}

static void owed_archive(struct archive *archive, struct owed *owed)
{
	struct share_lent *answer = &owed->answer;

	archive_u64(archive, &owed->transaction);
	archive_bool(archive, &owed->completes);
	archive_u32(archive, &answer->head.kind);
	archive_u32(archive, &answer->head.status);
	archive_u32(archive, &answer->id);
	archive_u32(archive, &answer->first);
	archive_u32(archive, &answer->pages);
	archive_u32(archive, &answer->flags);
}

/* The port is there anew, or nobody's: that is no peer of which the guest was told before. */
static void restored(struct share *share, bool was_told)
{
	share->told_word = was_told ? NO_PEERS_WORD : 0;
	share->is_renewed = !share->memory->side;
	share_say_open(share, share->is_open);
}

void share_archive(struct archive *archive, struct share *share)
{
	struct owed list[OWED];
	uint32_t count = archive->loading ? 0 : list_owed(share, list);
	bool was_told = share->version && share->told_word;

	archive_bool(archive, &share->is_open);
	archive_u32(archive, &share->version);
	archive_bool(archive, &was_told);
	archive_u32(archive, &count);
	archive_check(archive, !share->version || (share->is_open &&
						   share->version >= SHARE_1_0 &&
						   share->version <= SHARE_1_2));
	archive_check(archive, count <= OWED && (share->is_open || (!count && !was_told)));
	for (uint32_t n = 0; n < count && !archive->error; n++)
		owed_archive(archive, &list[n]);
	if (!archive->loading || archive->error)
		return;
	take_owed(share, list, count);
	restored(share, was_told);
	CHECK(check_share(share));
}
