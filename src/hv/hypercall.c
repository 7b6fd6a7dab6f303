/*
 * Hypercalls: decode, validate, act (TLFS "Hypercall interface").
 *
 *   control word   15:0 call code  16 fast  26:17 variable header in 8 bytes  31:27 0  43:32 rep
 *                  count  47:44 0  59:48 rep start  63:60 0
 *   input          header | variable header | rep elements          output   fixed part, or one
 *                  piece per rep element
 *   result         15:0 status  43:32 elements done, counted from 0
 *
 *  1. One table says what a call is. Everything that the table can decide is decided before the
 *     handler runs, in this order: known and granted, control word, alignment and pages, readable
 *     and writable. A handler checks its own fields, then acts; once it has acted it does not
 *     refuse.
 *  2. The input is copied once and only the copy is looked at; the output is written once, after
 *     the handler.
 *  3. A rep call that has used its slice (50 us) puts the next element's number into the guest's
 *     control register and is executed again: interrupts come in between, and what the guest
 *     changes meanwhile is read and checked anew.
 */
#include "hv_internal.h"

#include <assert.h>

enum { REP_MASK = 0xfff }; /* of a rep count, and of a rep start */

static const struct hv_call_definition calls[] = {
	{
		.code = 0x0002, .name = "HvCallFlushVirtualAddressSpace",
		.act = hv_call_flush_space,
		.flags = CALL_MEMORY, .input_bytes = 24, .feature = HV_FLUSH,
	},
	{
		.code = 0x0003, .name = "HvCallFlushVirtualAddressList", .act = hv_call_flush_list,
		.flags = CALL_MEMORY | CALL_REP, .input_bytes = 24, .rep_input_bytes = 8,
		.feature = HV_FLUSH,
	},
	{
		.code = 0x0008, .name = "HvCallNotifyLongSpinWait", .act = hv_call_spin_wait,
		.flags = CALL_RING, .input_bytes = 8, .feature = HV_SPIN,
	},
	{
		.code = 0x000b, .name = "HvCallSendSyntheticClusterIpi", .act = hv_call_send_ipi,
		.flags = CALL_RING, .input_bytes = 16, .feature = HV_IPI,
	},
	{
		.code = 0x0013, .name = "HvCallFlushVirtualAddressSpaceEx",
		.act = hv_call_flush_space_ex,
		.flags = CALL_VARIABLE, .input_bytes = 32, .feature = HV_FLUSH,
		.feature_too = HV_EX_MASKS,
	},
	{
		.code = 0x0014, .name = "HvCallFlushVirtualAddressListEx",
		.act = hv_call_flush_list_ex,
		.flags = CALL_VARIABLE | CALL_REP, .input_bytes = 32, .rep_input_bytes = 8,
		.feature = HV_FLUSH, .feature_too = HV_EX_MASKS,
	},
	{
		.code = 0x0015, .name = "HvCallSendSyntheticClusterIpiEx",
		.act = hv_call_send_ipi_ex,
		.flags = CALL_VARIABLE, .input_bytes = 24, .feature = HV_IPI,
		.feature_too = HV_EX_MASKS,
	},
	{
		.code = 0x0050, .name = "HvCallGetVpRegisters", .act = hv_call_get_registers,
		.flags = CALL_REP, .input_bytes = 16, .rep_input_bytes = 4, .rep_output_bytes = 16,
		.feature = HV_VP_REGISTERS,
	},
	{
		.code = 0x0051, .name = "HvCallSetVpRegisters", .act = hv_call_set_registers,
		.flags = CALL_REP, .input_bytes = 16, .rep_input_bytes = 32,
		.feature = HV_VP_REGISTERS,
	},
	{
		.code = 0x005c, .name = "HvCallPostMessage", .act = hv_call_post_message,
		.flags = CALL_MEMORY, .input_bytes = 256, .feature = HV_MESSAGES,
	},
	{
		.code = 0x005d, .name = "HvCallSignalEvent", .act = hv_call_signal_event,
		.flags = CALL_RING, .input_bytes = 8, .feature = HV_EVENTS,
	},
	{
		.code = 0x009a, .name = "HvCallGetVpIndexFromApicId", .act = hv_call_vp_index,
		.flags = CALL_REP, .input_bytes = 16, .rep_input_bytes = 4, .rep_output_bytes = 4,
		.feature = HV_VP_REGISTERS,
	},
	{
		.code = 0x8001, .name = "HvExtCallQueryCapabilities", .act = hv_call_capabilities,
		.output_bytes = 8, .feature = HV_EXT_CALLS,
	},
	{
		.code = 0x8002, .name = "HvExtCallGetBootZeroedMemory", .act = hv_call_boot_zeroed,
		.flags = CALL_MEMORY, .output_bytes = 4088, .feature = HV_EXT_CALLS,
	},
	{
		.code = 0x8003, .name = "HvExtCallMemoryHeatHint", .act = hv_call_heat_hint,
		.flags = CALL_MEMORY | CALL_REP, .input_bytes = 8, .rep_input_bytes = 8,
		.feature = HV_EXT_CALLS,
	},
	{
		.code = 0xc000, .name = "UmbraAgreeOnVersion", .act = umbra_call_version,
		.input_bytes = 8, .output_bytes = 8, .feature = HV_UMBRA,
	},
	{
		.code = 0xc001, .name = "UmbraWork", .act = umbra_call_work,
		.flags = CALL_UMBRA, .input_bytes = 40, .output_bytes = 16, .feature = HV_UMBRA,
		.newest = UMBRA_VERSION_1_0,
	},
	{
		.code = 0xc002, .name = "UmbraCancel", .act = umbra_call_cancel,
		.flags = CALL_UMBRA, .input_bytes = 8, .feature = HV_UMBRA,
		.newest = UMBRA_VERSION_1_0,
	},
	{
		.code = 0xc003, .name = "UmbraNull", .act = umbra_call_null,
		.flags = CALL_UMBRA | CALL_RING, .input_bytes = 8, .feature = HV_UMBRA,
		.newest = UMBRA_VERSION_1_0,
	},
	{
		.code = 0xc004, .name = "UmbraPages", .act = umbra_call_pages,
		.flags = CALL_UMBRA | CALL_REP, .input_bytes = 8, .rep_input_bytes = 8,
		.rep_output_bytes = 8, .feature = HV_UMBRA, .newest = UMBRA_VERSION_1_0,
	},
	{
		.code = 0xc010, .name = "UmbraRegisterRing", .act = umbra_call_register_ring,
		.flags = CALL_UMBRA, .input_bytes = 24, .feature = HV_UMBRA,
		.newest = UMBRA_VERSION_1_1,
	},
	{
		.code = 0xc011, .name = "UmbraUnregisterRing", .act = umbra_call_unregister_ring,
		.flags = CALL_UMBRA, .input_bytes = 8, .feature = HV_UMBRA,
		.newest = UMBRA_VERSION_1_1,
	},
	{
		.code = 0xc012, .name = "UmbraDoorbell", .act = umbra_call_doorbell,
		.flags = CALL_UMBRA, .input_bytes = 8, .feature = HV_UMBRA,
		.newest = UMBRA_VERSION_1_1,
	},
};

void hv_check_calls(void)
{
	for (size_t n = 0; n < sizeof(calls) / sizeof(calls[0]); n++) {
		const struct hv_call_definition *call = &calls[n];

		assert(call->act && call->name && (!n || calls[n - 1].code < call->code));
		assert(call->input_bytes + call->rep_input_bytes <= CALL_INPUT_BYTES);
		assert(call->output_bytes <= CALL_OUTPUT_BYTES);
		if (call->flags & CALL_REP)
			assert(call->rep_input_bytes && !call->output_bytes);
		else
			assert(!call->rep_input_bytes && !call->rep_output_bytes);
		assert(!(call->flags & CALL_UMBRA) == !call->newest);
	}
}

struct decoded {
	uint64_t control, input_gpa, output_gpa;
	bool fast;
	uint32_t variable_bytes, rep_count, rep_start;
};

const struct hv_call_definition *hv_find_call(uint16_t code)
{
	unsigned low = 0;
	unsigned high = sizeof(calls) / sizeof(calls[0]);

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (calls[middle].code == code)
			return &calls[middle];
		if (calls[middle].code < code)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

bool hv_call_must_yield(const struct hv_call *call)
{
	return call->reps_done && __builtin_ia32_rdtsc() >= call->until_tsc;
}

enum hv_status hv_refuse(struct hv_partition *partition, enum hv_status status)
{
	if (status)
		hv_count(&partition->refused[status < HV_STATUSES ? status : HV_STATUSES - 1]);
	return status;
}

/* ---- registers ---- */

static bool is_long(const struct engine_call_registers *registers) { return registers->long_mode; }

static void decode(const struct engine_call_registers *given, struct decoded *decoded)
{
	const uint64_t *registers = given->gpr;

	if (is_long(given))
		*decoded = (struct decoded){ .control = registers[1],
					     .input_gpa = registers[2],
					     .output_gpa = registers[8] };
	else
		*decoded =
			(struct decoded){ .control = registers[2] << 32 | (uint32_t)registers[0],
					  .input_gpa = registers[3] << 32 | (uint32_t)registers[1],
					  .output_gpa =
						  registers[7] << 32 | (uint32_t)registers[6] };
	decoded->fast = decoded->control >> 16 & 1;
	decoded->variable_bytes = (decoded->control >> 17 & 0x3ff) * 8;
	decoded->rep_count = decoded->control >> 32 & REP_MASK;
	decoded->rep_start = decoded->control >> 48 & REP_MASK;
}

static void set_result(const struct engine_call_registers *registers, uint64_t result)
{
	registers->gpr[0] = is_long(registers) ? result : (uint32_t)result;
	if (!is_long(registers))
		registers->gpr[2] = result >> 32;
}

static void set_rep_start(const struct engine_call_registers *registers, uint32_t start)
{
	uint64_t *high = is_long(registers) ? &registers->gpr[1] : &registers->gpr[2];
	unsigned shift = is_long(registers) ? 48 : 16;

	*high = (*high & ~((uint64_t)REP_MASK << shift)) | (uint64_t)start << shift;
}

/* Fast input: the two registers, then XMM0 to XMM5. */
static void read_fast(struct hv_cpu *cpu, const struct decoded *decoded, uint8_t *to, size_t bytes)
{
	const struct hv_host *host = cpu->partition->host;

	memcpy(to, &decoded->input_gpa, 8);
	memcpy(to + 8, &decoded->output_gpa, 8);
	for (unsigned n = 0; 16 + 16 * n < bytes; n++)
		memcpy(to + 16 + 16 * n, host->xmm(host->context, cpu->index, n), 16);
}

static void exchange_words(uint64_t *reg, uint64_t *word, bool write)
{
	if (write)
		*reg = *word;
	else
		*word = *reg;
}

static void exchange_pair(struct hv_cpu *cpu, const struct engine_call_registers *registers,
			  size_t at, uint64_t pair[2], bool write)
{
	const struct hv_host *host = cpu->partition->host;

	if (at >= 16) {
		void *xmm = host->xmm(host->context, cpu->index, (unsigned)(at / 16 - 1));

		write ? memcpy(xmm, pair, 16) : memcpy(pair, xmm, 16);
	} else if (is_long(registers)) {
		exchange_words(&registers->gpr[2], &pair[0], write);
		exchange_words(&registers->gpr[8], &pair[1], write);
	} else if (write) {
		registers->gpr[3] = pair[0] >> 32;
		registers->gpr[1] = (uint32_t)pair[0];
		registers->gpr[7] = pair[1] >> 32;
		registers->gpr[6] = (uint32_t)pair[1];
	} else {
		pair[0] = registers->gpr[3] << 32 | (uint32_t)registers->gpr[1];
		pair[1] = registers->gpr[7] << 32 | (uint32_t)registers->gpr[6];
	}
}

/*
 * Fast output: the registers that follow those of the input, rounded up to 16 bytes; of them bytes
 * [skip, skip + bytes).
 */
static void write_fast(struct hv_cpu *cpu, const struct engine_call_registers *registers,
		       size_t input_bytes, const uint8_t *output, size_t skip, size_t bytes)
{
	size_t first = (input_bytes + 15) & ~15ull;

	for (size_t done = 0; done < bytes; done++) {
		size_t at = first + skip + done;
		uint64_t pair[2];

		exchange_pair(cpu, registers, at & ~15ull, pair, false);
		((uint8_t *)pair)[at & 15] = output[done];
		exchange_pair(cpu, registers, at & ~15ull, pair, true);
	}
}

/* ---- checks ---- */

static enum hv_status check_granted(const struct hv_partition *partition,
				    const struct hv_call_definition *definition)
{
	if (!definition)
		return HV_INVALID_CALL_CODE;
	if (!hv_has(partition, (enum hv_feature)definition->feature) ||
	    !hv_has(partition, (enum hv_feature)definition->feature_too))
		/* without the extension its codes do not exist */
		return definition->feature == HV_UMBRA ? HV_INVALID_CALL_CODE : HV_ACCESS_DENIED;
	return definition->flags & CALL_UMBRA && partition->umbra_version < definition->newest
		       ? HV_FEATURE_UNAVAILABLE
		       : HV_SUCCESS;
}

static enum hv_status check_control(const struct hv_partition *partition,
				    const struct hv_call_definition *definition,
				    const struct decoded *decoded, size_t input_bytes,
				    size_t output_bytes)
{
	bool rep = definition->flags & CALL_REP;

	if (decoded->control & 0xf000f000f8000000ull ||
	    (decoded->fast && definition->flags & CALL_MEMORY) ||
	    (decoded->variable_bytes && !(definition->flags & CALL_VARIABLE)))
		return HV_INVALID_INPUT;
	if (rep ? !decoded->rep_count || decoded->rep_start >= decoded->rep_count
		: decoded->rep_count || decoded->rep_start)
		return HV_INVALID_INPUT;
	if (!decoded->fast)
		return HV_SUCCESS;
	if (input_bytes > (hv_has(partition, HV_XMM_INPUT) ? FAST_BYTES : 16))
		return HV_INVALID_INPUT;
	if (output_bytes && (!hv_has(partition, HV_XMM_OUTPUT) ||
			     ((input_bytes + 15) & ~15ull) + output_bytes > FAST_BYTES))
		return HV_INVALID_INPUT;
	return HV_SUCCESS;
}

/* One parameter list in memory: aligned, within one page, in the address space. */
static enum hv_status check_place(const struct hv_partition *partition, uint64_t gpa, size_t bytes,
				  bool write)
{
	int error;

	if (!bytes)
		return HV_SUCCESS;
	if (gpa & 7 || gpa % GUEST_PAGE_BYTES + bytes > GUEST_PAGE_BYTES)
		return HV_INVALID_ALIGNMENT;
	error = guest_memory_probe(partition->host->memory, gpa, bytes, write);
	if (error == -EROFS)
		return HV_INVALID_PARAMETER;
	return error ? HV_INVALID_ALIGNMENT : HV_SUCCESS;
}

static bool overlap(uint64_t a, size_t a_bytes, uint64_t b, size_t b_bytes)
{
	return a_bytes && b_bytes && a < b + b_bytes && b < a + a_bytes;
}

static enum hv_status check_places(const struct hv_partition *partition,
				   const struct decoded *decoded, size_t input_bytes,
				   size_t output_bytes)
{
	enum hv_status status;

	if (decoded->fast)
		return HV_SUCCESS;
	status = check_place(partition, decoded->input_gpa, input_bytes, false);
	if (!status)
		status = check_place(partition, decoded->output_gpa, output_bytes, true);
	return !status && overlap(decoded->input_gpa, input_bytes, decoded->output_gpa,
				  output_bytes)
		       ? HV_INVALID_PARAMETER
		       : status;
}

/* ---- the path ---- */

/* The header and the elements that are still to do. */
static int read_input(struct hv_cpu *cpu, const struct hv_call_definition *definition,
		      const struct decoded *decoded, uint8_t *to, size_t input_bytes)
{
	const struct guest_memory *memory = cpu->partition->host->memory;
	size_t head = definition->input_bytes + decoded->variable_bytes;
	size_t skip = (size_t)decoded->rep_start * definition->rep_input_bytes;

	if (decoded->fast) {
		uint8_t all[FAST_BYTES + 16];

		read_fast(cpu, decoded, all, input_bytes);
		memcpy(to, all, head);
		memcpy(to + head, all + head + skip, input_bytes - head - skip);
		return 0;
	}
	return guest_memory_read(memory, decoded->input_gpa, to, head) ||
	       guest_memory_read(memory, decoded->input_gpa + head + skip, to + head,
				 input_bytes - head - skip);
}

static void write_output(struct hv_cpu *cpu, const struct engine_call_registers *registers,
			 const struct decoded *decoded, size_t input_bytes, const uint8_t *output,
			 size_t offset, size_t bytes)
{
	const struct hv_host *host = cpu->partition->host;

	if (!bytes)
		return;
	if (decoded->fast) {
		write_fast(cpu, registers, input_bytes, output, offset, bytes);
		return;
	}
	if (!guest_memory_write(host->memory, decoded->output_gpa + offset, output, bytes))
		host->memory_written(host->context, decoded->output_gpa + offset, bytes);
}

static enum engine_call act(struct hv_cpu *cpu, const struct engine_call_registers *registers,
			    const struct hv_call_definition *definition,
			    const struct decoded *decoded, size_t input_bytes, size_t output_bytes)
{
	uint8_t input[CALL_INPUT_BYTES], output[CALL_OUTPUT_BYTES];
	struct hv_call call = { .cpu = cpu,
				.definition = definition,
				.rep_start = decoded->rep_start,
				.rep_count = decoded->rep_count,
				.variable_bytes = decoded->variable_bytes,
				.input = input,
				.output = output,
				.reps_done = decoded->rep_start,
				.until_tsc =
					definition->flags & CALL_REP
						? __builtin_ia32_rdtsc() + cpu->partition->slice_tsc
						: 0 };
	size_t offset = (size_t)decoded->rep_start * definition->rep_output_bytes;
	enum hv_status status;

	assert(input_bytes <= sizeof(input) && output_bytes <= sizeof(output));
	assert(decoded->rep_start < decoded->rep_count || !(definition->flags & CALL_REP));
	if (read_input(cpu, definition, decoded, input, input_bytes)) {
		/* an overlay went away since the check */
		set_result(registers, hv_refuse(cpu->partition, HV_INVALID_ALIGNMENT));
		return ENGINE_CALL_DONE;
	}
	memset(output, 0, output_bytes);
	status = definition->act(&call);
	assert(call.reps_done >= decoded->rep_start && call.reps_done <= decoded->rep_count);
	assert(status < HV_STATUSES);
	if (definition->flags & CALL_REP) {
		write_output(cpu, registers, decoded, input_bytes, output, offset,
			     (call.reps_done - decoded->rep_start) *
				     (size_t)definition->rep_output_bytes);
		if (!status && call.reps_done < call.rep_count) {
			hv_count(&cpu->partition->yields);
			set_rep_start(registers, call.reps_done);
			return ENGINE_CALL_AGAIN;
		}
	} else if (!status || status == HV_CALL_PENDING || status == HV_CANCELLED) {
		write_output(cpu, registers, decoded, input_bytes, output, 0, output_bytes);
	}
	if (status != HV_CALL_PENDING)
		hv_refuse(cpu->partition, status);
	set_result(registers,
		   (uint64_t)status | (uint64_t)(definition->flags & CALL_REP ? call.reps_done : 0)
					      << 32);
	return ENGINE_CALL_DONE;
}

enum engine_call hv_hypercall(struct hv_cpu *cpu, const struct engine_call_registers *registers)
{
	struct hv_partition *partition = cpu->partition;
	const struct hv_call_definition *definition;
	struct decoded decoded;
	size_t input_bytes = 0;
	size_t output_bytes = 0;
	enum hv_status status;

	if (!(__atomic_load_n(&partition->hypercall, __ATOMIC_RELAXED) & 1) ||
	    !registers->protected_mode)
		return ENGINE_CALL_UNDEFINED;
	hv_count(&partition->calls);
	guest_memory_begin();
	decode(registers, &decoded);
	definition = hv_find_call((uint16_t)decoded.control);
	status = check_granted(partition, definition);
	if (!status) {
		input_bytes = definition->input_bytes + decoded.variable_bytes +
			      (size_t)decoded.rep_count * definition->rep_input_bytes;
		output_bytes = definition->output_bytes +
			       (size_t)decoded.rep_count * definition->rep_output_bytes;
		status = check_control(partition, definition, &decoded, input_bytes, output_bytes);
	}
	if (!status)
		status = check_places(partition, &decoded, input_bytes, output_bytes);
	if (!status)
		return act(cpu, registers, definition, &decoded, input_bytes, output_bytes);
	set_result(registers, hv_refuse(partition, status));
	return ENGINE_CALL_DONE;
}
