/* The operations of the API (umbra-client.h). Made by tools/gen-client: not changed by hand. */
#include "client_internal.h"

#include <stddef.h>

int umbra_list_machines(struct umbra_client *client, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/machines",
		.members = NULL,
	};

	return client_call(client, &operation, NULL, ret);
}

static const struct client_member create_machine_members[] = {
	{ .name = "name",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_create_machine, name) },
	{ .name = "start",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, start) },
	{ .name = "kernel",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, kernel) },
	{ .name = "initrd",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, initrd) },
	{ .name = "append",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, append) },
	{ .name = "memory",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, memory) },
	{ .name = "memory-min",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, memory_min) },
	{ .name = "cpus",
	  .kind = CLIENT_NUMBER,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, cpus) },
	{ .name = "cpu-model",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, cpu_model) },
	{ .name = "mitigations",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, mitigations) },
	{ .name = "hv",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, hv) },
	{ .name = "no-bus",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, no_bus) },
	{ .name = "overhead",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, overhead) },
	{ .name = "console",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, console) },
	{ .name = "socket",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, socket) },
	{ .name = "disks",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, disks) },
	{ .name = "parents",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, parents) },
	{ .name = "override",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, override) },
	{ .name = "networks",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, networks) },
	{ .name = "ports",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, ports) },
	{ .name = "serve",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, serve) },
	{ .name = "bind",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, bind) },
	{ .name = "time-limit",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, time_limit) },
	{ .name = "guest-forks",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, guest_forks) },
	{ .name = "restore",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, restore) },
	{ .name = "image",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_machine, image) },
	{ 0 },
};

int umbra_create_machine(struct umbra_client *client, const struct umbra_create_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines",
		.members = create_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_machine, machine) },
	{ 0 },
};

int umbra_get_machine(struct umbra_client *client, const struct umbra_get_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/machines/{machine}",
		.members = get_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member forget_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_forget_machine, machine) },
	{ 0 },
};

int umbra_forget_machine(struct umbra_client *client, const struct umbra_forget_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "DELETE",
		.path = "/v1/machines/{machine}",
		.members = forget_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member start_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_start_machine, machine) },
	{ 0 },
};

int umbra_start_machine(struct umbra_client *client, const struct umbra_start_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/start",
		.members = start_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member pause_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_pause_machine, machine) },
	{ 0 },
};

int umbra_pause_machine(struct umbra_client *client, const struct umbra_pause_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/pause",
		.members = pause_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member resume_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_resume_machine, machine) },
	{ 0 },
};

int umbra_resume_machine(struct umbra_client *client, const struct umbra_resume_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/resume",
		.members = resume_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member stop_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_stop_machine, machine) },
	{ 0 },
};

int umbra_stop_machine(struct umbra_client *client, const struct umbra_stop_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/stop",
		.members = stop_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member kill_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_kill_machine, machine) },
	{ 0 },
};

int umbra_kill_machine(struct umbra_client *client, const struct umbra_kill_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/kill",
		.members = kill_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member fork_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_fork_machine, machine) },
	{ .name = "name",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_fork_machine, name) },
	{ .name = "count",
	  .kind = CLIENT_NUMBER,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_fork_machine, count) },
	{ .name = "suspend-parent",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_fork_machine, suspend_parent) },
	{ .name = "end-parent",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_fork_machine, end_parent) },
	{ .name = "console",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_fork_machine, console) },
	{ .name = "disks",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_fork_machine, disks) },
	{ 0 },
};

int umbra_fork_machine(struct umbra_client *client, const struct umbra_fork_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/fork",
		.members = fork_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member save_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_save_machine, machine) },
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_save_machine, file) },
	{ .name = "stop",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_save_machine, stop) },
	{ .name = "replace",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_save_machine, replace) },
	{ .name = "compress",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_save_machine, compress) },
	{ 0 },
};

int umbra_save_machine(struct umbra_client *client, const struct umbra_save_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/save",
		.members = save_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member restore_machine_members[] = {
	{ .name = "name",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_restore_machine, name) },
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_restore_machine, file) },
	{ .name = "console",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_restore_machine, console) },
	{ 0 },
};

int umbra_restore_machine(struct umbra_client *client,
		const struct umbra_restore_machine *arguments, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/restore",
		.members = restore_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_registers_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_registers, machine) },
	{ 0 },
};

int umbra_get_registers(struct umbra_client *client, const struct umbra_get_registers *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/machines/{machine}/registers",
		.members = get_registers_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member set_machine_memory_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_set_machine_memory, machine) },
	{ .name = "bytes",
	  .kind = CLIENT_NUMBER,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_set_machine_memory, bytes) },
	{ 0 },
};

int umbra_set_machine_memory(struct umbra_client *client,
		const struct umbra_set_machine_memory *arguments, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "PUT",
		.path = "/v1/machines/{machine}/memory",
		.members = set_machine_memory_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_machine_memory_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_machine_memory, machine) },
	{ 0 },
};

int umbra_get_machine_memory(struct umbra_client *client,
		const struct umbra_get_machine_memory *arguments, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/machines/{machine}/memory",
		.members = get_machine_memory_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member run_program_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_run_program, machine) },
	{ .name = "command",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_run_program, command) },
	{ .name = "env",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_run_program, env) },
	{ .name = "input",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_run_program, input) },
	{ 0 },
};

int umbra_run_program(struct umbra_client *client, const struct umbra_run_program *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/exec",
		.members = run_program_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_screenshot_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_screenshot, machine) },
	{ 0 },
};

int umbra_get_screenshot(struct umbra_client *client, const struct umbra_get_screenshot *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/machines/{machine}/screenshot",
		.members = get_screenshot_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member trace_machine_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_trace_machine, machine) },
	{ .name = "seconds",
	  .kind = CLIENT_NUMBER,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_trace_machine, seconds) },
	{ .name = "kinds",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_trace_machine, kinds) },
	{ 0 },
};

int umbra_trace_machine(struct umbra_client *client, const struct umbra_trace_machine *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/machines/{machine}/trace",
		.members = trace_machine_members,
	};

	return client_call(client, &operation, arguments, ret);
}

int umbra_get_memory(struct umbra_client *client, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/memory",
		.members = NULL,
	};

	return client_call(client, &operation, NULL, ret);
}

static const struct client_member set_reserve_members[] = {
	{ .name = "size",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_set_reserve, size) },
	{ 0 },
};

int umbra_set_reserve(struct umbra_client *client, const struct umbra_set_reserve *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "PUT",
		.path = "/v1/memory/reserve",
		.members = set_reserve_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_bus_members[] = {
	{ .name = "of",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_get_bus, of) },
	{ 0 },
};

int umbra_get_bus(struct umbra_client *client, const struct umbra_get_bus *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/bus",
		.members = get_bus_members,
	};

	return client_call(client, &operation, arguments, ret);
}

int umbra_get_memory_history(struct umbra_client *client, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/memory/history",
		.members = NULL,
	};

	return client_call(client, &operation, NULL, ret);
}

static const struct client_member get_usage_members[] = {
	{ .name = "shares",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_get_usage, shares) },
	{ 0 },
};

int umbra_get_usage(struct umbra_client *client, const struct umbra_get_usage *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/usage",
		.members = get_usage_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member attach_disk_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_attach_disk, machine) },
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_attach_disk, file) },
	{ 0 },
};

int umbra_attach_disk(struct umbra_client *client, const struct umbra_attach_disk *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/disks",
		.members = attach_disk_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member detach_disk_members[] = {
	{ .name = "machine",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_detach_disk, machine) },
	{ .name = "disk",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_detach_disk, disk) },
	{ 0 },
};

int umbra_detach_disk(struct umbra_client *client, const struct umbra_detach_disk *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/machines/{machine}/disks/detach",
		.members = detach_disk_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_disk_members[] = {
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_disk, file) },
	{ .name = "format",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_get_disk, format) },
	{ .name = "chain",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_get_disk, chain) },
	{ .name = "parents",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_get_disk, parents) },
	{ 0 },
};

int umbra_get_disk(struct umbra_client *client, const struct umbra_get_disk *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/disks/info",
		.members = get_disk_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member check_disk_members[] = {
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_check_disk, file) },
	{ .name = "format",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_check_disk, format) },
	{ .name = "chain",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_check_disk, chain) },
	{ .name = "quick",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_check_disk, quick) },
	{ .name = "parents",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_check_disk, parents) },
	{ 0 },
};

int umbra_check_disk(struct umbra_client *client, const struct umbra_check_disk *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/disks/check",
		.members = check_disk_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member create_disk_members[] = {
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_create_disk, file) },
	{ .name = "size",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_disk, size) },
	{ .name = "format",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_disk, format) },
	{ .name = "parent",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_disk, parent) },
	{ .name = "parent-format",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_disk, parent_format) },
	{ .name = "block-size",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_disk, block_size) },
	{ .name = "fixed",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_create_disk, fixed) },
	{ 0 },
};

int umbra_create_disk(struct umbra_client *client, const struct umbra_create_disk *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/disks",
		.members = create_disk_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member convert_disk_members[] = {
	{ .name = "source",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_convert_disk, source) },
	{ .name = "target",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_convert_disk, target) },
	{ .name = "from",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_convert_disk, from) },
	{ .name = "to",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_convert_disk, to) },
	{ .name = "fixed",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_convert_disk, fixed) },
	{ 0 },
};

int umbra_convert_disk(struct umbra_client *client, const struct umbra_convert_disk *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/disks/convert",
		.members = convert_disk_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member search_images_members[] = {
	{ .name = "query",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_search_images, query) },
	{ .name = "limit",
	  .kind = CLIENT_NUMBER,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_search_images, limit) },
	{ .name = "catalog",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_search_images, catalog) },
	{ 0 },
};

int umbra_search_images(struct umbra_client *client, const struct umbra_search_images *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/images",
		.members = search_images_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member index_images_members[] = {
	{ .name = "folders",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_index_images, folders) },
	{ .name = "catalog",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_index_images, catalog) },
	{ 0 },
};

int umbra_index_images(struct umbra_client *client, const struct umbra_index_images *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/images/index",
		.members = index_images_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_image_members[] = {
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_image, file) },
	{ .name = "format",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_get_image, format) },
	{ 0 },
};

int umbra_get_image(struct umbra_client *client, const struct umbra_get_image *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/images/about",
		.members = get_image_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member set_image_members[] = {
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_set_image, file) },
	{ .name = "values",
	  .kind = CLIENT_TEXTS,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_set_image, values) },
	{ .name = "format",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_set_image, format) },
	{ .name = "override",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_set_image, override) },
	{ 0 },
};

int umbra_set_image(struct umbra_client *client, const struct umbra_set_image *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "PUT",
		.path = "/v1/images/about",
		.members = set_image_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member get_image_policy_members[] = {
	{ .name = "file",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_image_policy, file) },
	{ .name = "format",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_QUERY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_get_image_policy, format) },
	{ 0 },
};

int umbra_get_image_policy(struct umbra_client *client,
		const struct umbra_get_image_policy *arguments, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/images/policy",
		.members = get_image_policy_members,
	};

	return client_call(client, &operation, arguments, ret);
}

int umbra_list_operations(struct umbra_client *client, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/operations",
		.members = NULL,
	};

	return client_call(client, &operation, NULL, ret);
}

static const struct client_member get_operation_members[] = {
	{ .name = "operation",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_get_operation, operation) },
	{ 0 },
};

int umbra_get_operation(struct umbra_client *client, const struct umbra_get_operation *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/operations/{operation}",
		.members = get_operation_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member cancel_operation_members[] = {
	{ .name = "operation",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_PATH,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_cancel_operation, operation) },
	{ 0 },
};

int umbra_cancel_operation(struct umbra_client *client,
		const struct umbra_cancel_operation *arguments, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "DELETE",
		.path = "/v1/operations/{operation}",
		.members = cancel_operation_members,
	};

	return client_call(client, &operation, arguments, ret);
}

int umbra_get_version(struct umbra_client *client, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/v1/version",
		.members = NULL,
	};

	return client_call(client, &operation, NULL, ret);
}

static const struct client_member open_page_members[] = {
	{ .name = "end",
	  .kind = CLIENT_FLAG,
	  .place = CLIENT_IN_BODY,
	  .is_needed = false,
	  .offset = offsetof(struct umbra_open_page, end) },
	{ 0 },
};

int umbra_open_page(struct umbra_client *client, const struct umbra_open_page *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/page",
		.members = open_page_members,
	};

	return client_call(client, &operation, arguments, ret);
}

static const struct client_member enter_page_members[] = {
	{ .name = "ticket",
	  .kind = CLIENT_TEXT,
	  .place = CLIENT_IN_BODY,
	  .is_needed = true,
	  .offset = offsetof(struct umbra_enter_page, ticket) },
	{ 0 },
};

int umbra_enter_page(struct umbra_client *client, const struct umbra_enter_page *arguments,
		struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "POST",
		.path = "/v1/session",
		.members = enter_page_members,
	};

	return client_call(client, &operation, arguments, ret);
}

int umbra_get_metrics(struct umbra_client *client, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/metrics",
		.members = NULL,
	};

	return client_call(client, &operation, NULL, ret);
}

int umbra_get_document(struct umbra_client *client, struct umbra_answer *ret)
{
	static const struct client_operation operation = {
		.method = "GET",
		.path = "/openapi.json",
		.members = NULL,
	};

	return client_call(client, &operation, NULL, ret);
}
