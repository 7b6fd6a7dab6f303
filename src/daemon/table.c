/* The operations (api.h): their members stand in the order in which the command takes operands. */
#include "api.h"

#include <stddef.h>

#include "daemon.h"
#include "failure.h"

#define COMMAND(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define MEMBERS(...) ((const struct api_member[]){ __VA_ARGS__, { 0 } })
#define MACHINE(passed) \
	{ .name = "machine", .type = API_NAME, .place = API_IN_PATH, .is_needed = true, \
	  .option = (passed), .about = "The machine's name" }
#define MEMBER(member, its_type, its_option, text) \
	{ .name = (member), .type = (its_type), .option = (its_option), .about = (text) }
#define NEEDED(member, its_type, its_option, text) \
	{ .name = (member), .type = (its_type), .option = (its_option), .about = (text), \
	  .is_needed = true }
#define QUERY(member, its_type, its_option, text) \
	{ .name = (member), .type = (its_type), .place = API_IN_QUERY, .option = (its_option), \
	  .about = (text) }
#define FILE_QUERY(text) \
	{ .name = "file", .type = API_PATH, .place = API_IN_QUERY, .is_needed = true, \
	  .option = "", .about = (text) }
#define FORMATS WORDS("vhdx", "raw", "vhd", "qcow2", "vmdk")
#define FORMAT(its_place) \
	{ .name = "format", .type = API_TEXT, .place = (its_place), .option = "--format", \
	  .words = FORMATS, .about = "Of the file; vhdx unless it is said" }

/* What umbra run takes. */
static const struct api_member create_members[] = {
	NEEDED("name", API_NAME, "--name", "What it is called"),
	MEMBER("start", API_FLAG, NULL, "It is started at once; else it is only described"),
	MEMBER("kernel", API_PATH, "--kernel", "A Linux bzImage, or a multiboot ELF image"),
	MEMBER("initrd", API_PATH, "--initrd", "The initial file system, or a multiboot module"),
	MEMBER("append", API_TEXT, "--append", "The kernel's command line"),
	MEMBER("memory", API_TEXT, "--memory", "A size, or start=,min=,max=,buffer=,weight="),
	MEMBER("memory-min", API_TEXT, "--memory-min", "A size"),
	{ .name = "cpus", .type = API_NUMBER, .option = "--cpus", .least = 1, .most = 16,
	  .about = "Virtual processors" },
	MEMBER("cpu-model", API_TEXT, "--cpu-model", "The processor that the guest sees"),
	MEMBER("mitigations", API_TEXT, "--mitigations", "guest or off"),
	MEMBER("hv", API_TEXT, "--hv", "What of the Hyper-V interface is offered"),
	MEMBER("no-bus", API_FLAG, "--no-bus", "Without the partition bus"),
	MEMBER("overhead", API_TEXT, "--overhead", "A size: what its process uses beside memory"),
	MEMBER("console", API_PATH, "--console", "The file that its console goes to"),
	MEMBER("socket", API_PATH, "--socket", "A socket of the host's that leads into the guest"),
	MEMBER("disks", API_TEXTS, "--disk", "FILE[,format=FORMAT][,readonly][,direct] each"),
	MEMBER("parents", API_PATHS, "--parents", "Folders in which parents of disks may lie"),
	MEMBER("override", API_TEXT, "--override", "Why a policy shall not be minded"),
	MEMBER("networks", API_TEXTS, "--net", "user, switch=NAME, tap=NAME or none, each"),
	MEMBER("ports", API_TEXTS, "--publish", "[ADDRESS:]PORT:GUEST[/udp] each"),
	MEMBER("serve", API_TEXTS, "--serve", "Channels of which it is one end: NAME[=packet]"),
	MEMBER("bind", API_TEXTS, "--bind", "The other ends: MACHINE/NAME[=packet]"),
	MEMBER("time-limit", API_TEXT, "--time-limit", "Seconds after which it is ended"),
	MEMBER("guest-forks", API_TEXT, "--guest-forks", "Its guest may: COUNT[,PER-MINUTE]"),
	MEMBER("restore", API_PATH, "--restore", "What it goes on from: a saved machine"),
	MEMBER("image", API_PATH, "", "A disk that brings its kernel"),
	{ 0 },
};

static const struct api_member fork_members[] = {
	MACHINE(""),
	MEMBER("name", API_NAME, "--name", "Of the child; of several it is what names begin with"),
	{ .name = "count", .type = API_NUMBER, .option = "-n", .least = 1, .most = 64,
	  .about = "How many children" },
	MEMBER("suspend-parent", API_FLAG, "--suspend-parent", "The parent stands still then"),
	MEMBER("end-parent", API_FLAG, "--end-parent", "The parent ends then"),
	MEMBER("console", API_PATH, "--console", "The file that the child's console goes to"),
	MEMBER("disks", API_PATH, "--disks", "The folder of the disks' new files"),
	{ 0 },
};

static const struct api_member disk_create_members[] = {
	NEEDED("file", API_PATH, "", "The new disk"),
	MEMBER("size", API_TEXT, "--size", "As 4G"),
	FORMAT(API_IN_BODY),
	MEMBER("parent", API_PATH, "--parent", "The disk on which it is a layer"),
	MEMBER("parent-format", API_TEXT, "--parent-format", "Of that disk"),
	MEMBER("block-size", API_TEXT, "--block-size", "As 2M"),
	MEMBER("fixed", API_FLAG, "--fixed", "All of its space is taken at once"),
	{ 0 },
};

static const struct api_member disk_check_members[] = {
	FILE_QUERY("The disk"),
	FORMAT(API_IN_QUERY),
	QUERY("chain", API_FLAG, "--chain", "With its parents"),
	QUERY("quick", API_FLAG, "--quick", "Without comparing the content with its digests"),
	{ .name = "parents", .type = API_PATHS, .place = API_IN_QUERY, .option = "--parents",
	  .about = "Folders in which parents may lie" },
	{ 0 },
};

static const struct api_member disk_info_members[] = {
	FILE_QUERY("The disk"),
	FORMAT(API_IN_QUERY),
	QUERY("chain", API_FLAG, "--chain", "With its parents"),
	{ .name = "parents", .type = API_PATHS, .place = API_IN_QUERY, .option = "--parents",
	  .about = "Folders in which parents may lie" },
	{ 0 },
};

static const struct api_member disk_convert_members[] = {
	NEEDED("source", API_PATH, "", "The disk that is read"),
	NEEDED("target", API_PATH, "", "The new one"),
	MEMBER("from", API_TEXT, "--from", "The format of the source; vhdx unless it is said"),
	MEMBER("to", API_TEXT, "--to", "The format of the target; vhdx unless it is said"),
	MEMBER("fixed", API_FLAG, "--fixed", "All of its space is taken at once"),
	{ 0 },
};

/* Those of the command after its name: it takes what follows -- as its own. */
static const struct api_member exec_members[] = {
	MACHINE(""),
	{ .name = "command", .type = API_TEXTS, .place = API_IN_QUERY, .is_needed = true,
	  .option = "", .about = "The program and its arguments, one each" },
	{ .name = "env", .type = API_TEXTS, .place = API_IN_QUERY, .option = "--env",
	  .about = "NAME=VALUE each" },
	QUERY("terminal", API_FLAG, "-t", "It has a terminal"),
	{ .name = "rows", .type = API_NUMBER, .place = API_IN_QUERY, .most = 1000,
	  .about = "Of the terminal" },
	{ .name = "columns", .type = API_NUMBER, .place = API_IN_QUERY, .most = 1000,
	  .about = "Of the terminal" },
	{ 0 },
};

/* It is answered when they are over. */
enum { TRACE_SECONDS_MOST = 60 };

static const struct api_member trace_members[] = {
	MACHINE(""),
	{ .name = "seconds", .type = API_NUMBER, .place = API_IN_QUERY, .option = "--seconds",
	  .is_needed = true, .least = 1, .most = TRACE_SECONDS_MOST, .about = "For how long" },
	QUERY("kinds", API_TEXT, "--kinds", "As exits,bus; umbra trace --help lists them"),
	{ 0 },
};

static const struct api_member run_members[] = {
	MACHINE(""),
	NEEDED("command", API_TEXTS, "", "The program and its arguments, one each"),
	MEMBER("env", API_TEXTS, "--env", "NAME=VALUE each"),
	MEMBER("input", API_TEXT, NULL, "What it reads"),
	{ 0 },
};

#define OPERATION_MEMBER \
	{ .name = "operation", .type = API_TEXT, .place = API_IN_PATH, .is_needed = true, \
	  .about = "Its id" }

const struct api_operation api_operations[] = {
	/* ---- machines ---- */
	{ .method = "GET", .path = "/v1/machines", .id = "listMachines", .group = "machines",
	  .about = "All machines that run or are described", .answer = "Machines",
	  .run = call_machines },
	{ .method = "POST", .path = "/v1/machines", .id = "createMachine", .group = "machines",
	  .about = "Describes a machine, and may start it", .members = create_members,
	  .command = COMMAND("run", "--detach"), .answer = "Created", .status = 201,
	  .leaves_others = true, .run = call_specify },
	{ .method = "GET", .path = "/v1/machines/{machine}", .id = "getMachine",
	  .group = "machines", .about = "One machine", .members = MEMBERS(MACHINE(NULL)),
	  .answer = "Machine", .run = call_machine },
	{ .method = "DELETE", .path = "/v1/machines/{machine}", .id = "forgetMachine",
	  .group = "machines", .about = "Forgets one that does not run",
	  .members = MEMBERS(MACHINE(NULL)), .run = call_forget },
	{ .method = "POST", .path = "/v1/machines/{machine}/start", .id = "startMachine",
	  .group = "machines", .about = "Starts one that was described",
	  .members = MEMBERS(MACHINE(NULL)), .answer = "Operation", .status = 202,
	  .leaves_others = true, .run = call_start },
	{ .method = "POST", .path = "/v1/machines/{machine}/pause", .id = "pauseMachine",
	  .group = "machines", .about = "Has it stand still",
	  .members = MEMBERS(MACHINE(NULL)), .run = call_stand },
	{ .method = "POST", .path = "/v1/machines/{machine}/resume", .id = "resumeMachine",
	  .group = "machines", .about = "Lets it go on; 409 where it does not stand still",
	  .members = MEMBERS(MACHINE(NULL)), .run = call_stand },
	{ .method = "POST", .path = "/v1/machines/{machine}/stop", .id = "stopMachine",
	  .group = "machines", .about = "Asks its guest to power off; half a minute later it ends",
	  .members = MEMBERS(MACHINE(NULL)), .answer = "Operation", .status = 202,
	  .run = call_end },
	{ .method = "POST", .path = "/v1/machines/{machine}/kill", .id = "killMachine",
	  .group = "machines", .about = "Ends it at once", .members = MEMBERS(MACHINE(NULL)),
	  .answer = "Operation", .status = 202, .run = call_end },
	{ .method = "POST", .path = "/v1/machines/{machine}/fork", .id = "forkMachine",
	  .group = "machines", .about = "Makes machines of it, all of one moment",
	  .members = fork_members, .kind = API_BEGINS, .command = COMMAND("fork", "--json"),
	  .answer = "Operation", .status = 202, .leaves_others = true },
	{ .method = "POST", .path = "/v1/machines/{machine}/save", .id = "saveMachine",
	  .group = "machines", .about = "Writes the whole machine to a file",
	  .members = MEMBERS(MACHINE(""), NEEDED("file", API_PATH, "", "The file"),
			     MEMBER("stop", API_FLAG, "--stop", "It ends then"),
			     MEMBER("replace", API_FLAG, "--replace", "The file may be there"),
			     MEMBER("compress", API_FLAG, "--compress", "Memory is packed")),
	  .kind = API_BEGINS, .command = COMMAND("save"), .answer = "Operation", .status = 202 },
	{ .method = "POST", .path = "/v1/restore", .id = "restoreMachine", .group = "machines",
	  .about = "Goes on from a saved machine",
	  .members = MEMBERS(NEEDED("name", API_NAME, "--name", "What it is called"),
			     NEEDED("file", API_PATH, "--restore", "What umbra save wrote"),
			     MEMBER("console", API_PATH, "--console", "The console's file")),
	  .kind = API_BEGINS, .command = COMMAND("run", "--detach"), .answer = "Operation",
	  .status = 202, .leaves_others = true },
	{ .method = "GET", .path = "/v1/machines/{machine}/registers", .id = "getRegisters",
	  .group = "machines", .about = "Where its processors are, and what it counts",
	  .members = MEMBERS(MACHINE(NULL)), .answer = "Registers", .run = call_registers },
	{ .method = "PUT", .path = "/v1/machines/{machine}/memory", .id = "setMachineMemory",
	  .group = "memory", .about = "How much memory its guest shall have",
	  .members = MEMBERS(MACHINE(NULL),
			     NEEDED("bytes", API_NUMBER, NULL, "0: what it needs")),
	  .run = call_set_memory },
	{ .method = "GET", .path = "/v1/machines/{machine}/memory", .id = "getMachineMemory",
	  .group = "memory", .about = "What its guest has and needs",
	  .members = MEMBERS(MACHINE("")), .kind = API_COMMAND,
	  .command = COMMAND("memory", "--json"), .answer = "Object" },
	{ .method = "GET", .path = "/v1/machines/{machine}/console", .id = "watchConsole",
	  .group = "streams", .about = "Its console, from its last 64 KiB on",
	  .members = MEMBERS(MACHINE("")), .kind = API_SOCKET, .command = COMMAND("console") },
	{ .method = "GET", .path = "/v1/machines/{machine}/exec", .id = "attachProgram",
	  .group = "streams", .about = "A program in the machine, by umbra-agent",
	  .members = exec_members, .kind = API_SOCKET, .command = COMMAND("exec") },
	{ .method = "POST", .path = "/v1/machines/{machine}/exec", .id = "runProgram",
	  .group = "machines", .about = "Runs a program in the machine, and answers what it said",
	  .members = run_members, .command = COMMAND("exec", "-T"), .answer = "Ran",
	  .run = call_program },
	{ .method = "GET", .path = "/v1/machines/{machine}/screenshot", .id = "getScreenshot",
	  .group = "machines", .about = "What is on its screen",
	  .members = MEMBERS(MACHINE(NULL)), .answer = "Picture", .run = call_screenshot },
	{ .method = "GET", .path = "/v1/machines/{machine}/trace", .id = "traceMachine",
	  .group = "machines",
	  .about = "What its processors leave translated code for meanwhile, as Chrome and Perfetto"
		   " show it",
	  .members = trace_members, .kind = API_COMMAND,
	  .command = COMMAND("trace", "--chrome"), .answer = "Object" },
	/* ---- memory and bus ---- */
	{ .method = "GET", .path = "/v1/memory", .id = "getMemory", .group = "memory",
	  .about = "All machines whose memory is adjusted, the host, and the last moves",
	  .kind = API_COMMAND, .command = COMMAND("memory", "--json"), .answer = "Object" },
	{ .method = "PUT", .path = "/v1/memory/reserve", .id = "setReserve", .group = "memory",
	  .about = "How much of the host's memory guests never get",
	  .members = MEMBERS(NEEDED("size", API_TEXT, "--reserve", "As 2G, or auto")),
	  .kind = API_COMMAND, .command = COMMAND("memory") },
	{ .method = "GET", .path = "/v1/bus", .id = "getBus", .group = "bus",
	  .about = "Channels between machines, and what was decided about them",
	  .members = MEMBERS(QUERY("of", API_NAME, "", "One machine's alone")),
	  .kind = API_COMMAND, .command = COMMAND("bus", "--json"), .answer = "Any" },
	{ .method = "GET", .path = "/v1/memory/history", .id = "getMemoryHistory",
	  .group = "memory", .about = "The last five minutes of them, a sample a second, in MiB",
	  .kind = API_COMMAND, .command = COMMAND("memory", "--history"), .answer = "Any" },
	{ .method = "GET", .path = "/v1/usage", .id = "getUsage", .group = "machines",
	  .about = "What each machine that runs uses of the host, and what it counts",
	  .members = MEMBERS(QUERY("shares", API_FLAG, NULL,
				   "Also which of its memory is its alone")),
	  .answer = "Usage", .run = call_usage },
	/* ---- disks ---- */
	{ .method = "POST", .path = "/v1/machines/{machine}/disks", .id = "attachDisk",
	  .group = "disks", .about = "Gives a machine that runs another disk, or a disc",
	  .members = MEMBERS(MACHINE(""),
			     NEEDED("file", API_TEXT, "",
				    "FILE[,format=FORMAT][,readonly][,dvd]")),
	  .kind = API_COMMAND, .command = COMMAND("disk", "attach", "--json"), .answer = "Any",
	  .status = 201 },
	{ .method = "POST", .path = "/v1/machines/{machine}/disks/detach", .id = "detachDisk",
	  .group = "disks", .about = "Takes a disk from a machine that runs",
	  .members = MEMBERS(MACHINE(""), NEEDED("disk", API_TEXT, "", "Its number, or file")),
	  .kind = API_COMMAND, .command = COMMAND("disk", "detach", "--json"), .answer = "Any" },
	{ .method = "GET", .path = "/v1/disks/info", .id = "getDisk", .group = "disks",
	  .about = "What a disk is", .members = disk_info_members, .kind = API_COMMAND,
	  .command = COMMAND("disk", "info", "--json"), .answer = "Any" },
	{ .method = "GET", .path = "/v1/disks/check", .id = "checkDisk", .group = "disks",
	  .about = "Whether a disk is sound; writes nothing", .members = disk_check_members,
	  .kind = API_COMMAND, .command = COMMAND("disk", "check", "--json"),
	  .found_code = FAILURE_UNUSABLE, .answer = "Checked" },
	{ .method = "POST", .path = "/v1/disks", .id = "createDisk", .group = "disks",
	  .about = "Makes a disk", .members = disk_create_members, .kind = API_COMMAND,
	  .command = COMMAND("disk", "create", "--json"), .status = 201 },
	{ .method = "POST", .path = "/v1/disks/convert", .id = "convertDisk", .group = "disks",
	  .about = "Copies a disk into another format", .members = disk_convert_members,
	  .kind = API_BEGINS, .command = COMMAND("disk", "convert", "--json"),
	  .answer = "Operation", .status = 202 },
	/* ---- images ---- */
	{ .method = "GET", .path = "/v1/images", .id = "searchImages", .group = "images",
	  .about = "Images of the catalog (docs/image.md has the language)",
	  .members = MEMBERS({ .name = "query", .type = API_TEXT, .place = API_IN_QUERY,
			       .option = "", .is_needed = true, .about = "As tag:web size>1G" },
			     { .name = "limit", .type = API_NUMBER, .place = API_IN_QUERY,
			       .option = "--limit", .least = 1, .most = 1000,
			       .about = "How many rows" },
			     QUERY("catalog", API_PATH, "--catalog", "Another catalog")),
	  .kind = API_COMMAND, .command = COMMAND("image", "search", "--json"),
	  .answer = "Object" },
	{ .method = "POST", .path = "/v1/images/index", .id = "indexImages", .group = "images",
	  .about = "Has the catalog know the images of these folders",
	  .members = MEMBERS(NEEDED("folders", API_PATHS, "", "Where they lie"),
			     MEMBER("catalog", API_PATH, "--catalog", "Another catalog")),
	  .kind = API_BEGINS, .command = COMMAND("image", "index", "--json"),
	  .answer = "Operation", .status = 202 },
	{ .method = "GET", .path = "/v1/images/about", .id = "getImage", .group = "images",
	  .about = "What an image says about itself",
	  .members = MEMBERS(FILE_QUERY("The image"), FORMAT(API_IN_QUERY)),
	  .kind = API_COMMAND, .command = COMMAND("image", "get", "--json"), .answer = "Any" },
	{ .method = "PUT", .path = "/v1/images/about", .id = "setImage", .group = "images",
	  .about = "Changes what an image says about itself, its policy with it",
	  .members = MEMBERS(NEEDED("file", API_PATH, "", "The image"), FORMAT(API_IN_BODY),
			     MEMBER("override", API_TEXT, "--override",
				    "Why a rule that allows it is passed over"),
			     NEEDED("values", API_TEXTS, "",
				    "KEY=VALUE each; nothing behind = removes it")),
	  .kind = API_COMMAND, .command = COMMAND("image", "set") },
	{ .method = "GET", .path = "/v1/images/policy", .id = "getImagePolicy", .group = "images",
	  .about = "What may be done with an image, and which rule refuses the rest",
	  .members = MEMBERS(FILE_QUERY("The image"), FORMAT(API_IN_QUERY)),
	  .kind = API_COMMAND, .command = COMMAND("image", "policy", "--json"),
	  .found_code = FAILURE_POLICY,
	  .answer = "Object" },
	/* ---- operations and events ---- */
	{ .method = "GET", .path = "/v1/operations", .id = "listOperations",
	  .group = "operations", .about = "Those that are under way, and the last that ended",
	  .answer = "Operations", .run = call_operations },
	{ .method = "GET", .path = "/v1/operations/{operation}", .id = "getOperation",
	  .group = "operations", .about = "One operation", .members = MEMBERS(OPERATION_MEMBER),
	  .answer = "Operation", .run = call_operation },
	{ .method = "DELETE", .path = "/v1/operations/{operation}", .id = "cancelOperation",
	  .group = "operations", .about = "Ends it before it is done",
	  .members = MEMBERS(OPERATION_MEMBER), .answer = "Operation", .status = 202,
	  .run = call_cancel },
	{ .method = "GET", .path = "/v1/events", .id = "watchEvents", .group = "events",
	  .about = "What happens, as server-sent events; Last-Event-ID goes on after one",
	  .members = MEMBERS(QUERY("after", API_NUMBER, NULL, "The number of the last one known"),
			     QUERY("subject", API_TEXT, NULL, "Of one machine or operation")),
	  .kind = API_EVENTS, .answer = "Event" },
	/* ---- the daemon ---- */
	{ .method = "GET", .path = "/v1/version", .id = "getVersion", .group = "daemon",
	  .about = "Of the daemon, and of the API", .answer = "Version", .run = call_version },
	{ .method = "POST", .path = "/v1/page", .id = "openPage", .group = "daemon",
	  .about = "An address of the web page, at a port of this host, that is good once",
	  .members = MEMBERS(MEMBER("end", API_FLAG, NULL,
				    "Browsers that were let in before are not any more")),
	  .status = 201, .answer = "Page", .run = call_page, .is_secret = true },
	{ .method = "POST", .path = "/v1/session", .id = "enterPage", .group = "daemon",
	  .about = "What a browser is let in with, for the ticket of its address",
	  .members = MEMBERS(NEEDED("ticket", API_TEXT, NULL, "Of the address's fragment")),
	  .status = 201, .answer = "Session", .run = call_session, .is_secret = true },
	{ .method = "GET", .path = "/metrics", .id = "getMetrics", .group = "daemon",
	  .about = "Counters of the daemon and of all machines, for Prometheus",
	  .kind = API_PLAIN, .answer = "Text", .run = call_metrics },
	{ .method = "GET", .path = "/openapi.json", .id = "getDocument", .group = "daemon",
	  .about = "This document", .answer = "Object", .run = call_document },
	{ 0 },
};

const struct api_schema api_schemas[] = {
	{ "Any", "{}" },
	{ "Text", "{\"type\":\"string\"}" },
	{ "Object", "{\"type\":\"object\"}" },
	{ "Empty", "{\"type\":\"object\",\"maxProperties\":0}" },
	{ "Version", "{\"type\":\"object\",\"required\":[\"version\",\"api\"],\"properties\":{"
		     "\"version\":{\"type\":\"string\"},\"api\":{\"const\":\"1\"}},"
		     "\"additionalProperties\":false}" },
	{ "Failure",
	  "{\"type\":\"object\",\"required\":[\"code\",\"error\",\"reason\",\"remedy\"],"
	  "\"description\":\"As the command line says it: an exit code, its name, what, and what"
	  " to do\",\"additionalProperties\":false,\"properties\":{"
	  "\"code\":{\"enum\":[64,65,69,70,75,78]},"
	  "\"error\":{\"enum\":[\"usage\",\"unusable\",\"no-engine\",\"fault\",\"guest-crashed\","
	  "\"policy\"]},\"reason\":{\"type\":\"string\"},\"remedy\":{\"type\":\"string\"},"
	  "\"refusal\":{\"$ref\":\"#/components/schemas/Refusal\"}}}" },
	{ "Refusal",
	  "{\"type\":\"object\",\"description\":\"Why a disk is refused; offset: in that file,"
	  " null: it has no meaning\",\"additionalProperties\":false,"
	  "\"required\":[\"kind\",\"file\","
	  "\"offset\",\"structure\",\"found\",\"expected\",\"remedy\"],\"properties\":{"
	  "\"kind\":{\"type\":\"string\"},\"file\":{\"type\":\"string\"},"
	  "\"offset\":{\"type\":[\"integer\",\"null\"]},\"structure\":{\"type\":\"string\"},"
	  "\"found\":{\"type\":\"string\"},\"expected\":{\"type\":\"string\"},"
	  "\"remedy\":{\"type\":\"string\"}}}" },
	{ "Machine",
	  "{\"type\":\"object\",\"required\":[\"name\",\"state\"],"
	  "\"description\":\"As umbra ps --json has it (umbra-control(7), info), and its state\","
	  "\"properties\":{\"name\":{\"type\":\"string\"},"
	  "\"state\":{\"enum\":[\"starting\",\"running\",\"paused\",\"stopped\"]},"
	  "\"pid\":{\"type\":\"integer\"},\"process\":{\"type\":\"integer\"},"
	  "\"cpus\":{\"type\":\"integer\"},\"memory\":{\"type\":\"integer\"},"
	  "\"from\":{\"type\":\"string\"},\"started\":{\"type\":\"integer\"},"
	  "\"specification\":{\"type\":\"object\"}}}" },
	{ "Machines",
	  "{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Machine\"}}" },
	{ "Created", "{\"oneOf\":[{\"$ref\":\"#/components/schemas/Machine\"},"
		     "{\"$ref\":\"#/components/schemas/Operation\"}]}" },
	{ "Registers",
	  "{\"type\":\"object\",\"required\":[\"processors\",\"counters\"],\"properties\":{"
	  "\"processors\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}},"
	  "\"counters\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"array\","
	  "\"items\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}}}}}" },
	{ "Usage",
	  "{\"type\":\"object\",\"description\":\"By the machine's name\","
	  "\"additionalProperties\":{\"type\":\"object\",\"properties\":{"
	  "\"processor-ms\":{\"type\":\"integer\",\"description\":\"That it has had\"},"
	  "\"waited-ms\":{\"type\":\"integer\",\"description\":\"That it could have run\"},"
	  "\"occupied\":{\"type\":\"integer\",\"description\":\"Bytes\"},"
	  "\"unique\":{\"type\":\"integer\"},\"shared\":{\"type\":\"integer\"},"
	  "\"counters\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"array\","
	  "\"items\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}}}},"
	  "\"additionalProperties\":false}}" },
	{ "Picture", "{\"type\":\"object\",\"required\":[\"png\"],\"properties\":{\"png\":{"
		     "\"type\":\"string\",\"contentEncoding\":\"base64\","
		     "\"contentMediaType\":\"image/png\"}},\"additionalProperties\":false}" },
	{ "Page", "{\"type\":\"object\",\"required\":[\"address\"],\"properties\":{"
		  "\"address\":{\"type\":\"string\"}},\"additionalProperties\":false}" },
	{ "Session", "{\"type\":\"object\",\"required\":[\"session\"],\"properties\":{"
		     "\"session\":{\"type\":\"string\"}},\"additionalProperties\":false}" },
	{ "Ran", "{\"type\":\"object\",\"required\":[\"code\",\"output\",\"errors\",\"cut\"],"
		 "\"properties\":{\"code\":{\"type\":\"integer\"},"
		 "\"output\":{\"type\":\"string\"},\"errors\":{\"type\":\"string\"},"
		 "\"cut\":{\"type\":\"boolean\",\"description\":\"There was more\"}},"
		 "\"additionalProperties\":false}" },
	{ "Checked", "{\"type\":\"object\",\"required\":[\"sound\",\"findings\"],\"properties\":{"
		     "\"sound\":{\"type\":\"boolean\"},\"findings\":{\"type\":\"array\"}}}" },
	{ "Operation",
	  "{\"type\":\"object\",\"required\":[\"id\",\"kind\",\"state\",\"machine\",\"begun\"],"
	  "\"properties\":{\"id\":{\"type\":\"string\"},\"kind\":{\"type\":\"string\"},"
	  "\"state\":{\"enum\":[\"running\",\"done\",\"failed\",\"cancelled\"]},"
	  "\"machine\":{\"type\":[\"string\",\"null\"]},"
	  "\"begun\":{\"type\":\"integer\",\"description\":\"Milliseconds since 1970\"},"
	  "\"ended\":{\"type\":\"integer\"},\"done\":{\"type\":\"integer\"},"
	  "\"all\":{\"type\":\"integer\"},\"result\":{},"
	  "\"cut\":{\"const\":true,\"description\":\"The result was too long to be kept\"},"
	  "\"error\":{\"$ref\":\"#/components/schemas/Failure\"}},"
	  "\"additionalProperties\":false}" },
	{ "Operations",
	  "{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Operation\"}}" },
	{ "Event",
	  "{\"type\":\"object\",\"required\":[\"kind\",\"subject\",\"at\"],\"properties\":{"
	  "\"kind\":{\"enum\":[\"started\",\"changed\",\"ended\",\"described\",\"forgotten\","
	  "\"operation\"]},\"subject\":{\"type\":\"string\"},\"at\":{\"type\":\"integer\"},"
	  "\"machine\":{\"$ref\":\"#/components/schemas/Object\"},"
	  "\"operation\":{\"$ref\":\"#/components/schemas/Operation\"}}}" },
	{ 0 },
};
