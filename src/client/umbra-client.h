/*
 * libumbra-client: the API of umbrad (umbra-api(7)) for programs in C. A function for each of its
 * operations, made of the OpenAPI document; answers are JSON, for any parser. Streams (events,
 * consoles, attached programs) are not here.
 *
 *  - Arguments of an operation are a structure: what is NULL, false or 0 is not said, but for a
 *    number that is needed. Lists are ended by NULL. Texts are UTF-8.
 *  - A function returns 0 when the daemon has answered: ret->status is that of HTTP, 200 to 299
 *    where it was done. Otherwise -errno, and *ret holds nothing: -EINVAL, a needed argument is
 *    missing; -EMSGSIZE, the answer is larger than 64 MiB; -EPROTO, it is no HTTP; or what the
 *    socket said.
 *  - A client is one thread's at a time; each call is a connection of its own.
 *
 * Made by tools/gen-client (this part: umbra-client.h.in): not changed by hand.
 */
#ifndef UMBRA_CLIENT_H
#define UMBRA_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct umbra_client;

struct umbra_answer {
	unsigned status;
	char *text; /* ended by a zero byte */
	size_t bytes;
	char location[128]; /* of a 202: where its operation is; else "" */
};

/* socket: NULL: where the daemon of this user listens. To be closed; NULL: errno says why. */
struct umbra_client *umbra_client_open(const char *socket);
void umbra_client_close(struct umbra_client *client);
/* How long a call may take; 0: as long as it takes. 120 unless it is said. */
void umbra_client_set_seconds(struct umbra_client *client, unsigned seconds);
/* Of the next call: done once, however often it is asked (umbra-api(7), Keys). */
void umbra_client_set_key(struct umbra_client *client, const char *key);
/* Any request: path with its query; body: JSON, or NULL. */
int umbra_client_ask(struct umbra_client *client, const char *method, const char *path,
		     const char *body, struct umbra_answer *ret);
void umbra_answer_free(struct umbra_answer *answer);

/* All machines that run or are described. */
int umbra_list_machines(struct umbra_client *client, struct umbra_answer *ret);

struct umbra_create_machine {
	const char *name; /* What it is called, needed */
	bool start; /* It is started at once; else it is only described */
	const char *kernel; /* A Linux bzImage, or a multiboot ELF image */
	const char *initrd; /* The initial file system, or a multiboot module */
	const char *append; /* The kernel's command line */
	const char *memory; /* A size, or start=,min=,max=,buffer=,weight= */
	const char *memory_min; /* A size */
	long long cpus; /* Virtual processors */
	const char *cpu_model; /* The processor that the guest sees */
	const char *mitigations; /* guest or off */
	const char *hv; /* What of the Hyper-V interface is offered */
	bool no_bus; /* Without the partition bus */
	const char *overhead; /* A size: what its process uses beside memory */
	const char *console; /* The file that its console goes to */
	const char *socket; /* A socket of the host's that leads into the guest */
	const char *const *disks; /* FILE[,format=FORMAT][,readonly][,direct] each */
	const char *const *parents; /* Folders in which parents of disks may lie */
	const char *override; /* Why a policy shall not be minded */
	const char *const *networks; /* user, switch=NAME, tap=NAME or none, each */
	const char *const *ports; /* [ADDRESS:]PORT:GUEST[/udp] each */
	const char *const *serve; /* Channels of which it is one end: NAME[=packet] */
	const char *const *bind; /* The other ends: MACHINE/NAME[=packet] */
	const char *time_limit; /* Seconds after which it is ended */
	const char *guest_forks; /* Its guest may: COUNT[,PER-MINUTE] */
	const char *restore; /* What it goes on from: a saved machine */
	const char *image; /* A disk that brings its kernel */
};
/* Describes a machine, and may start it. */
int umbra_create_machine(struct umbra_client *client, const struct umbra_create_machine *arguments,
		struct umbra_answer *ret);

struct umbra_get_machine {
	const char *machine; /* The machine's name, needed */
};
/* One machine. */
int umbra_get_machine(struct umbra_client *client, const struct umbra_get_machine *arguments,
		struct umbra_answer *ret);

struct umbra_forget_machine {
	const char *machine; /* The machine's name, needed */
};
/* Forgets one that does not run. */
int umbra_forget_machine(struct umbra_client *client, const struct umbra_forget_machine *arguments,
		struct umbra_answer *ret);

struct umbra_start_machine {
	const char *machine; /* The machine's name, needed */
};
/* Starts one that was described. */
int umbra_start_machine(struct umbra_client *client, const struct umbra_start_machine *arguments,
		struct umbra_answer *ret);

struct umbra_pause_machine {
	const char *machine; /* The machine's name, needed */
};
/* Has it stand still. */
int umbra_pause_machine(struct umbra_client *client, const struct umbra_pause_machine *arguments,
		struct umbra_answer *ret);

struct umbra_resume_machine {
	const char *machine; /* The machine's name, needed */
};
/* Lets it go on; 409 where it does not stand still. */
int umbra_resume_machine(struct umbra_client *client, const struct umbra_resume_machine *arguments,
		struct umbra_answer *ret);

struct umbra_stop_machine {
	const char *machine; /* The machine's name, needed */
};
/* Asks its guest to power off; half a minute later it ends. */
int umbra_stop_machine(struct umbra_client *client, const struct umbra_stop_machine *arguments,
		struct umbra_answer *ret);

struct umbra_kill_machine {
	const char *machine; /* The machine's name, needed */
};
/* Ends it at once. */
int umbra_kill_machine(struct umbra_client *client, const struct umbra_kill_machine *arguments,
		struct umbra_answer *ret);

struct umbra_fork_machine {
	const char *machine; /* The machine's name, needed */
	const char *name; /* Of the child; of several it is what names begin with */
	long long count; /* How many children */
	bool suspend_parent; /* The parent stands still then */
	bool end_parent; /* The parent ends then */
	const char *console; /* The file that the child's console goes to */
	const char *disks; /* The folder of the disks' new files */
};
/* Makes machines of it, all of one moment. */
int umbra_fork_machine(struct umbra_client *client, const struct umbra_fork_machine *arguments,
		struct umbra_answer *ret);

struct umbra_save_machine {
	const char *machine; /* The machine's name, needed */
	const char *file; /* The file, needed */
	bool stop; /* It ends then */
	bool replace; /* The file may be there */
	bool compress; /* Memory is packed */
};
/* Writes the whole machine to a file. */
int umbra_save_machine(struct umbra_client *client, const struct umbra_save_machine *arguments,
		struct umbra_answer *ret);

struct umbra_restore_machine {
	const char *name; /* What it is called, needed */
	const char *file; /* What umbra save wrote, needed */
	const char *console; /* The console's file */
};
/* Goes on from a saved machine. */
int umbra_restore_machine(struct umbra_client *client,
		const struct umbra_restore_machine *arguments, struct umbra_answer *ret);

struct umbra_get_registers {
	const char *machine; /* The machine's name, needed */
};
/* Where its processors are, and what it counts. */
int umbra_get_registers(struct umbra_client *client, const struct umbra_get_registers *arguments,
		struct umbra_answer *ret);

struct umbra_set_machine_memory {
	const char *machine; /* The machine's name, needed */
	long long bytes; /* 0: what it needs, needed */
};
/* How much memory its guest shall have. */
int umbra_set_machine_memory(struct umbra_client *client,
		const struct umbra_set_machine_memory *arguments, struct umbra_answer *ret);

struct umbra_get_machine_memory {
	const char *machine; /* The machine's name, needed */
};
/* What its guest has and needs. */
int umbra_get_machine_memory(struct umbra_client *client,
		const struct umbra_get_machine_memory *arguments, struct umbra_answer *ret);

struct umbra_run_program {
	const char *machine; /* The machine's name, needed */
	const char *const *command; /* The program and its arguments, one each, needed */
	const char *const *env; /* NAME=VALUE each */
	const char *input; /* What it reads */
};
/* Runs a program in the machine, and answers what it said. */
int umbra_run_program(struct umbra_client *client, const struct umbra_run_program *arguments,
		struct umbra_answer *ret);

struct umbra_get_screenshot {
	const char *machine; /* The machine's name, needed */
};
/* What is on its screen. */
int umbra_get_screenshot(struct umbra_client *client, const struct umbra_get_screenshot *arguments,
		struct umbra_answer *ret);

struct umbra_trace_machine {
	const char *machine; /* The machine's name, needed */
	long long seconds; /* For how long, needed */
	const char *kinds; /* As exits,bus; umbra trace --help lists them */
};
/* What its processors leave translated code for meanwhile, as Chrome and Perfetto show it. */
int umbra_trace_machine(struct umbra_client *client, const struct umbra_trace_machine *arguments,
		struct umbra_answer *ret);

/* All machines whose memory is adjusted, the host, and the last moves. */
int umbra_get_memory(struct umbra_client *client, struct umbra_answer *ret);

struct umbra_set_reserve {
	const char *size; /* As 2G, or auto, needed */
};
/* How much of the host's memory guests never get. */
int umbra_set_reserve(struct umbra_client *client, const struct umbra_set_reserve *arguments,
		struct umbra_answer *ret);

struct umbra_get_bus {
	const char *of; /* One machine's alone */
};
/* Channels between machines, and what was decided about them. */
int umbra_get_bus(struct umbra_client *client, const struct umbra_get_bus *arguments,
		struct umbra_answer *ret);

/* The last five minutes of them, a sample a second, in MiB. */
int umbra_get_memory_history(struct umbra_client *client, struct umbra_answer *ret);

struct umbra_get_usage {
	bool shares; /* Also which of its memory is its alone */
};
/* What each machine that runs uses of the host, and what it counts. */
int umbra_get_usage(struct umbra_client *client, const struct umbra_get_usage *arguments,
		struct umbra_answer *ret);

struct umbra_attach_disk {
	const char *machine; /* The machine's name, needed */
	const char *file; /* FILE[,format=FORMAT][,readonly][,dvd], needed */
};
/* Gives a machine that runs another disk, or a disc. */
int umbra_attach_disk(struct umbra_client *client, const struct umbra_attach_disk *arguments,
		struct umbra_answer *ret);

struct umbra_detach_disk {
	const char *machine; /* The machine's name, needed */
	const char *disk; /* Its number, or file, needed */
};
/* Takes a disk from a machine that runs. */
int umbra_detach_disk(struct umbra_client *client, const struct umbra_detach_disk *arguments,
		struct umbra_answer *ret);

struct umbra_get_disk {
	const char *file; /* The disk, needed */
	const char *format; /* Of the file; vhdx unless it is said */
	bool chain; /* With its parents */
	const char *const *parents; /* Folders in which parents may lie */
};
/* What a disk is. */
int umbra_get_disk(struct umbra_client *client, const struct umbra_get_disk *arguments,
		struct umbra_answer *ret);

struct umbra_check_disk {
	const char *file; /* The disk, needed */
	const char *format; /* Of the file; vhdx unless it is said */
	bool chain; /* With its parents */
	bool quick; /* Without comparing the content with its digests */
	const char *const *parents; /* Folders in which parents may lie */
};
/* Whether a disk is sound; writes nothing. */
int umbra_check_disk(struct umbra_client *client, const struct umbra_check_disk *arguments,
		struct umbra_answer *ret);

struct umbra_create_disk {
	const char *file; /* The new disk, needed */
	const char *size; /* As 4G */
	const char *format; /* Of the file; vhdx unless it is said */
	const char *parent; /* The disk on which it is a layer */
	const char *parent_format; /* Of that disk */
	const char *block_size; /* As 2M */
	bool fixed; /* All of its space is taken at once */
};
/* Makes a disk. */
int umbra_create_disk(struct umbra_client *client, const struct umbra_create_disk *arguments,
		struct umbra_answer *ret);

struct umbra_convert_disk {
	const char *source; /* The disk that is read, needed */
	const char *target; /* The new one, needed */
	const char *from; /* The format of the source; vhdx unless it is said */
	const char *to; /* The format of the target; vhdx unless it is said */
	bool fixed; /* All of its space is taken at once */
};
/* Copies a disk into another format. */
int umbra_convert_disk(struct umbra_client *client, const struct umbra_convert_disk *arguments,
		struct umbra_answer *ret);

struct umbra_search_images {
	const char *query; /* As tag:web size>1G, needed */
	long long limit; /* How many rows */
	const char *catalog; /* Another catalog */
};
/* Images of the catalog (docs/image.md has the language). */
int umbra_search_images(struct umbra_client *client, const struct umbra_search_images *arguments,
		struct umbra_answer *ret);

struct umbra_index_images {
	const char *const *folders; /* Where they lie, needed */
	const char *catalog; /* Another catalog */
};
/* Has the catalog know the images of these folders. */
int umbra_index_images(struct umbra_client *client, const struct umbra_index_images *arguments,
		struct umbra_answer *ret);

struct umbra_get_image {
	const char *file; /* The image, needed */
	const char *format; /* Of the file; vhdx unless it is said */
};
/* What an image says about itself. */
int umbra_get_image(struct umbra_client *client, const struct umbra_get_image *arguments,
		struct umbra_answer *ret);

struct umbra_set_image {
	const char *file; /* The image, needed */
	const char *const *values; /* KEY=VALUE each; nothing behind = removes it, needed */
	const char *format; /* Of the file; vhdx unless it is said */
	const char *override; /* Why a rule that allows it is passed over */
};
/* Changes what an image says about itself, its policy with it. */
int umbra_set_image(struct umbra_client *client, const struct umbra_set_image *arguments,
		struct umbra_answer *ret);

struct umbra_get_image_policy {
	const char *file; /* The image, needed */
	const char *format; /* Of the file; vhdx unless it is said */
};
/* What may be done with an image, and which rule refuses the rest. */
int umbra_get_image_policy(struct umbra_client *client,
		const struct umbra_get_image_policy *arguments, struct umbra_answer *ret);

/* Those that are under way, and the last that ended. */
int umbra_list_operations(struct umbra_client *client, struct umbra_answer *ret);

struct umbra_get_operation {
	const char *operation; /* Its id, needed */
};
/* One operation. */
int umbra_get_operation(struct umbra_client *client, const struct umbra_get_operation *arguments,
		struct umbra_answer *ret);

struct umbra_cancel_operation {
	const char *operation; /* Its id, needed */
};
/* Ends it before it is done. */
int umbra_cancel_operation(struct umbra_client *client,
		const struct umbra_cancel_operation *arguments, struct umbra_answer *ret);

/* Of the daemon, and of the API. */
int umbra_get_version(struct umbra_client *client, struct umbra_answer *ret);

struct umbra_open_page {
	bool end; /* Browsers that were let in before are not any more */
};
/* An address of the web page, at a port of this host, that is good once. */
int umbra_open_page(struct umbra_client *client, const struct umbra_open_page *arguments,
		struct umbra_answer *ret);

struct umbra_enter_page {
	const char *ticket; /* Of the address's fragment, needed */
};
/* What a browser is let in with, for the ticket of its address. */
int umbra_enter_page(struct umbra_client *client, const struct umbra_enter_page *arguments,
		struct umbra_answer *ret);

/* Counters of the daemon and of all machines, for Prometheus. */
int umbra_get_metrics(struct umbra_client *client, struct umbra_answer *ret);

/* This document. */
int umbra_get_document(struct umbra_client *client, struct umbra_answer *ret);
#ifdef __cplusplus
}
#endif
#endif
