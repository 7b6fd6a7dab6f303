/*
 * Policies: objects of rules, from three sources: the image (its `policy`, and `expires`), the
 * user, the system. An action is allowed when no rule of any source refuses it, for the disk and
 * each of its parents.
 *
 *   not-after            time or day; the clock being before what the history says it was is a
 *                        refusal, too
 *   hosts                names that may use it, with * and ?
 *   hardware             {"vendor": ..., "features": [...], "memory": bytes, "machine": "x86_64"}
 *   users                names that may do anything with it; of `rights`
 *                        {"write": [...], "fork": [...], ...} only this
 *   minimum-patches      terms such as openssl>=3.0.15 of installed packages; patch-level: of
 *                        patches.level, compared as text
 *   require-tags, require-signature (public keys), read-only, no-fork, no-export
 *   overridable          names of rules that a reason overrides
 *
 * Annotating obeys users and rights only: a term that has run out must be possible to change. Who
 * can write a file can change its own terms; what must hold against its owner is for the system's
 * policy, with require-signature.
 */
#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "image/image_internal.h"

enum { CLOCK_SLACK_SECONDS = 3600, POLICY_BYTES = 1 << 20 };

/* One source against one disk. */
struct question {
	struct disk *disk;
	enum image_action action;
	const json_t *policy, *about;
	const char *who;
	const char *user_name; /* NULL: looked up */
	struct image_refusal *refusal;
};

static bool refuse(const struct question *question, const char *rule, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool refuse(const struct question *question, const char *rule, const char *format, ...)
{
	struct image_refusal *refusal = question->refusal;
	char *text = NULL;
	va_list list;

	va_start(list, format);
	if (vasprintf(&text, format, list) < 0)
		text = NULL;
	va_end(list);
	snprintf(refusal->rule, sizeof(refusal->rule), "%s", rule);
	snprintf(refusal->who, sizeof(refusal->who), "%s", question->who);
	snprintf(refusal->text, sizeof(refusal->text), "%s", text ? text : "refused");
	for (char *character = refusal->text; *character; character++)
		*character =
			(unsigned char)*character < 0x20 || *character == 0x7f ? '?' : *character;
	free(text);
	return false;
}

static bool lists(const json_t *array, const char *name)
{
	for (size_t n = 0; n < json_array_size(array); n++) {
		const char *pattern = json_string_value(json_array_get(array, n));

		if (pattern && !fnmatch(pattern, name, 0))
			return true;
	}
	return false;
}

/* A list that is no list refuses: what cannot be understood must not be passed over. */
static bool is_list(const json_t *json)
{
	for (size_t n = 0; n < json_array_size(json); n++)
		if (!json_is_string(json_array_get(json, n)))
			return false;
	return json_is_array(json);
}

/* ---- rules: false when refused ---- */

bool image_parse_time(const char *text, time_t *ret)
{
	struct tm tm = { 0 };
	const char *end = text ? strptime(text, "%Y-%m-%d", &tm) : NULL;

	if (!end)
		return false;
	if (*end == 'T')
		end = strptime(end, "T%H:%M:%SZ", &tm);
	else
		tm.tm_hour = 24; /* all of that day */
	*ret = end && !*end ? timegm(&tm) : 0;
	return end && !*end;
}

static bool clock_is_sound(const struct question *question)
{
	json_t *history;
	const char *text;
	time_t last;
	bool sound = true;

	if (image_load_history(question->disk, &history))
		return refuse(question, "not-after", "its history cannot be read");
	text = json_string_value(
		json_object_get(json_array_get(history, json_array_size(history) - 1), "time"));
	if (text && image_parse_time(text, &last) && time(NULL) < last - CLOCK_SLACK_SECONDS)
		sound = refuse(question, "not-after",
			       "this host's clock is before %s, when it was last used", text);
	json_decref(history);
	return sound;
}

static bool rule_not_after(const struct question *question, const json_t *value)
{
	const char *text = json_string_value(value);
	time_t end;

	if (!image_parse_time(text, &end))
		return refuse(question, "not-after", "its time is not one");
	return time(NULL) < end ? clock_is_sound(question)
				: refuse(question, "not-after", "its time was over at %s", text);
}

static bool rule_hosts(const struct question *question, const json_t *value)
{
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	return (is_list(value) && lists(value, host)) ||
	       refuse(question, "hosts", "not on the host %s", host);
}

/* The flags that matter to images, by their usual names. */
static bool has_feature(const char *name)
{
	static const struct { const char *name; unsigned leaf, reg, bit;
	} features[] = {
		{ "sse4_2", 1, 2, 20 },  { "popcnt", 1, 2, 23 }, { "aes", 1, 2, 25 },
		{ "xsave", 1, 2, 26 },   { "avx", 1, 2, 28 },    { "f16c", 1, 2, 29 },
		{ "rdrand", 1, 2, 30 },  { "fma", 1, 2, 12 },    { "movbe", 1, 2, 22 },
		{ "bmi1", 7, 1, 3 },     { "avx2", 7, 1, 5 },    { "bmi2", 7, 1, 8 },
		{ "avx512f", 7, 1, 16 }, { "rdseed", 7, 1, 18 }, { "adx", 7, 1, 19 },
		{ "sha_ni", 7, 1, 29 },  { "vaes", 7, 2, 9 },
	};
	for (size_t n = 0; n < sizeof(features) / sizeof(features[0]); n++) {
		unsigned registers[4];

		if (!strcmp(features[n].name, name))
			return __get_cpuid_count(features[n].leaf, 0, &registers[0], &registers[1],
						 &registers[2], &registers[3]) &&
			       registers[features[n].reg] >> features[n].bit & 1;
	}
	return false;
}

static bool rule_hardware(const struct question *question, const json_t *value)
{
	const json_t *vendor = json_object_get(value, "vendor");
	const json_t *features = json_object_get(value, "features");
	const json_t *memory = json_object_get(value, "memory");
	const json_t *machine = json_object_get(value, "machine");
	unsigned registers[4] = { 0 };
	char is[13] = "";
	struct utsname name;

	if (!json_is_object(value))
		return refuse(question, "hardware", "its hardware is not an object");
	__get_cpuid(0, &registers[0], &registers[1], &registers[2], &registers[3]);
	memcpy(is, (unsigned[]){ registers[1], registers[3], registers[2] }, 12);
	uname(&name);
	if (vendor && (!json_is_string(vendor) || strcmp(json_string_value(vendor), is)))
		return refuse(question, "hardware", "not on processors of %s", is);
	if (machine &&
	    (!json_is_string(machine) || strcmp(json_string_value(machine), name.machine)))
		return refuse(question, "hardware", "not on %s", name.machine);
	if (features && !is_list(features))
		return refuse(question, "hardware", "its features are not a list");
	for (size_t n = 0; n < json_array_size(features); n++)
		if (!has_feature(json_string_value(json_array_get(features, n))))
			return refuse(question, "hardware", "this processor has no %s",
				      json_string_value(json_array_get(features, n)));
	if (memory && (!json_is_integer(memory) ||
		       json_integer_value(memory) >
			       (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)))
		return refuse(question, "hardware", "this host has too little memory");
	return true;
}

/* Out of the account data base; a number where there is none. */
void image_user_name(char name[64])
{
	const struct passwd *passwd = getpwuid(getuid());

	snprintf(name, 64, "%s", passwd ? passwd->pw_name : "");
	if (!passwd)
		snprintf(name, 64, "%u", getuid());
}

static void question_user(const struct question *question, char name[64])
{
	if (question->user_name)
		snprintf(name, 64, "%s", question->user_name);
	else
		image_user_name(name);
}

static bool rule_users(const struct question *question, const json_t *value)
{
	char name[64];

	question_user(question, name);
	return (is_list(value) && lists(value, name)) ||
	       refuse(question, "users", "not for the user %s", name);
}

static const char *const action_names[] = {
	"read", "write", "fork", "export", "attach", "annotate"
};

static bool rule_rights(const struct question *question, const json_t *value)
{
	const json_t *list = json_object_get(value, action_names[question->action]);
	char name[64];

	question_user(question, name);
	if (json_is_object(value) && !list)
		return true;
	return (is_list(list) && lists(list, name)) ||
	       refuse(question, "rights", "the user %s may not %s it", name,
		      action_names[question->action]);
}

/* One line of the versions against a term. */
static bool is_met(const char *line, const struct version_term *term)
{
	size_t name = strcspn(line, "\t\n");
	size_t version;
	char text[sizeof(term->version)];

	if (line[name] != '\t' || strlen(term->name) != name || strncmp(line, term->name, name))
		return true;
	version = strcspn(line + name + 1, "\n");
	if (version >= sizeof(text))
		return false;
	memcpy(text, line + name + 1, version);
	text[version] = 0;
	return version_matches(term, text);
}

static bool is_patched(const char *versions, const char *text, bool *ret_valid)
{
	struct version_term term;

	*ret_valid = version_parse(text, &term);
	for (const char *line = versions; *ret_valid && line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!is_met(line, &term))
			return false;
	return *ret_valid;
}

static bool rule_patches(const struct question *question, const json_t *value)
{
	char *versions = NULL;
	bool good = true;
	bool valid;

	if (!is_list(value))
		return refuse(question, "minimum-patches", "they are not a list");
	if (json_array_size(value) && image_load_versions(question->disk, &versions))
		return refuse(question, "minimum-patches",
			      "what it holds is not known: umbra image scan finds out");
	for (size_t n = 0; good && n < json_array_size(value); n++) {
		const char *text = json_string_value(json_array_get(value, n));

		good = is_patched(versions, text, &valid) ||
		       refuse(question, "minimum-patches",
			      valid ? "it does not have %s" : "%s is not a term", text);
	}
	free(versions);
	return good;
}

static bool rule_patch_level(const struct question *question, const json_t *value)
{
	const char *want = json_string_value(value);
	const char *has = json_string_value(image_get(question->about, "patches.level"));

	return (want && has && strcmp(has, want) >= 0) ||
	       refuse(question, "patch-level", "its patch level is %s", has ? has : "not known");
}

static bool rule_tags(const struct question *question, const json_t *value)
{
	const json_t *tags = json_object_get(question->about, "tags");

	if (!is_list(value))
		return refuse(question, "require-tags", "they are not a list");
	for (size_t n = 0; n < json_array_size(value); n++) {
		const char *want = json_string_value(json_array_get(value, n));
		bool has = false;

		for (size_t k = 0; k < json_array_size(tags); k++)
			has |= json_is_string(json_array_get(tags, k)) &&
			       !strcmp(json_string_value(json_array_get(tags, k)), want);
		if (!has)
			return refuse(question, "require-tags", "it has no tag %s", want);
	}
	return true;
}

static bool rule_signature(const struct question *question, const json_t *value)
{
	const char *what;
	char key[65];
	int error = image_verify(question->disk, true, key, &what);

	if (error == -ENOENT)
		return refuse(question, "require-signature", "it is not signed");
	if (error)
		return refuse(question, "require-signature", "%s is not what was signed", what);
	for (size_t n = 0; n < json_array_size(value); n++)
		if (json_is_string(json_array_get(value, n)) &&
		    !strcmp(json_string_value(json_array_get(value, n)), key))
			return true;
	return refuse(question, "require-signature", "its signer %s is not one of those asked for",
		      key);
}

static bool rule_flag(const struct question *question, const char *rule, const json_t *value,
		      enum image_action of, const char *text)
{
	if (json_is_false(value) || question->action != of)
		return true;
	return refuse(question, rule, "%s", text);
}

static bool rule_read_only(const struct question *question, const json_t *value)
{
	return rule_flag(question, "read-only", value, ACTION_WRITE, "it may only be read");
}
static bool rule_no_fork(const struct question *question, const json_t *value)
{
	return rule_flag(question, "no-fork", value, ACTION_FORK, "no children may be made on it");
}
static bool rule_no_export(const struct question *question, const json_t *value)
{
	return rule_flag(question, "no-export", value, ACTION_EXPORT,
			 "its content may not be copied out");
}
static bool rule_overridable(const struct question *question, const json_t *value)
{
	return is_list(value) || refuse(question, "overridable", "it is not a list");
}

/* ---- sources ---- */

/* A rule that is not known refuses: it was meant to forbid something. */
static bool obeys(const struct question *question)
{
	static const struct {
		const char *name;
		bool (*holds)(const struct question *question, const json_t *value);
		bool annotating;
	} rules[] = {
		{ "not-after", rule_not_after, false },
		{ "hosts", rule_hosts, false },
		{ "hardware", rule_hardware, false },
		{ "users", rule_users, true },
		{ "rights", rule_rights, true },
		{ "minimum-patches", rule_patches, false },
		{ "patch-level", rule_patch_level, false },
		{ "require-tags", rule_tags, false },
		{ "require-signature", rule_signature, false },
		{ "read-only", rule_read_only, false },
		{ "no-fork", rule_no_fork, false },
		{ "no-export", rule_no_export, false },
		{ "overridable", rule_overridable, false },
	};
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)question->policy, key, value)
	{
		size_t n = 0;

		while (n < sizeof(rules) / sizeof(rules[0]) && strcmp(rules[n].name, key))
			n++;
		if (n == sizeof(rules) / sizeof(rules[0])) {
			if (question->action != ACTION_ANNOTATE)
				return refuse(question, "unknown",
					      "a rule that this program does not know: %s", key);
			continue;
		}
		if (question->action == ACTION_ANNOTATE && !rules[n].annotating)
			continue;
		if (!rules[n].holds(question, value) &&
		    !(question->refusal->overridable &&
		      lists(json_object_get(question->policy, "overridable"), key)))
			return false;
	}
	return true;
}

static bool policy_is_obeyed(const struct question *question)
{
	if (json_is_object(question->policy))
		return obeys(question);
	return !question->policy || refuse(question, "policy", "it cannot be understood");
}

/* With a reason, rules that allow it are passed over, and noted: *ret_overridden. */
static bool source_allows(struct question *question, const char *override, bool *ret_overridden)
{
	struct image_refusal *refusal = question->refusal;

	refusal->rule[0] = 0;
	refusal->overridable = override != NULL;
	if (!policy_is_obeyed(question)) {
		refusal->overridable =
			lists(json_object_get(question->policy, "overridable"), refusal->rule);
		return false;
	}
	*ret_overridden |= refusal->rule[0] != 0;
	return true;
}

/* NULL: there is none; a JSON null: it is not sound. */
static json_t *load_file(const char *path)
{
	struct stat st;
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	json_t *json = NULL;

	if (fd < 0)
		return !path || errno == ENOENT || errno == ENOTDIR ? NULL : json_null();
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size <= POLICY_BYTES)
		json = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
	close(fd);
	return json ? json : json_null();
}

/* What the image says outside of its policy, as rules. */
static json_t *own_terms(const json_t *about)
{
	static const char *const terms[][2] = { { "expires", "not-after" },
						{ "compatible.hosts", "hosts" },
						{ "compatible.hardware", "hardware" },
						{ "rights", "rights" } };
	json_t *policy = json_object_get(about, "policy");
	json_t *value;

	if (policy && !json_is_object(policy))
		return json_null();
	policy = policy ? json_copy(policy) : json_object();
	for (size_t n = 0; n < sizeof(terms) / sizeof(terms[0]); n++) {
		value = image_get(about, terms[n][0]);
		if (value && !json_object_get(policy, terms[n][1]))
			json_object_set(policy, terms[n][1], value);
	}
	return policy;
}

static bool disk_allows(struct question question, const json_t *user, const json_t *system,
			const struct image_policies *files, const char *override,
			bool *ret_overridden)
{
	json_t *about, *own;
	char who[256];
	int error = image_load_about(question.disk, &about);
	bool allowed;

	snprintf(who, sizeof(who), "the image %s", disk_path(question.disk));
	question.who = who;
	if (error)
		return question.action == ACTION_ANNOTATE ||
		       refuse(&question, "policy", "what it says about itself cannot be read: %s",
			      strerror(-error));
	question.about = about;
	question.policy = own = own_terms(about);
	allowed = source_allows(&question, override, ret_overridden);
	question.policy = user;
	question.who = files->user;
	allowed = allowed && (!user || source_allows(&question, override, ret_overridden));
	question.policy = system;
	question.who = files->system;
	allowed = allowed && (!system || source_allows(&question, override, ret_overridden));
	json_decref(own);
	json_decref(about);
	return allowed;
}

int image_admit(struct disk *disk, enum image_action action, const struct image_policies *files,
		const char *override, bool *ret_overridden, struct image_refusal *refusal)
{
	json_t *user, *system;
	bool allowed = true;

	assert(disk && files && action <= ACTION_INSPECT);
	*ret_overridden = false;
	if (action == ACTION_INSPECT)
		return 0;
	user = load_file(files->user);
	system = load_file(files->system);
	for (struct disk *ancestor = disk; ancestor && allowed; ancestor = disk_parent(ancestor)) {
		/* a parent's content is what the child shows, but only the child is written */
		enum image_action of =
			ancestor != disk && (action == ACTION_WRITE || action == ACTION_ANNOTATE)
				? ACTION_READ
				: action;

		if (ancestor != disk && action == ACTION_ANNOTATE)
			break;
		allowed = disk_allows((struct question){ .disk = ancestor,
							 .action = of,
							 .user_name = files->user_name,
							 .refusal = refusal },
				      user, system, files, override, ret_overridden);
	}
	json_decref(user);
	json_decref(system);
	return allowed ? 0 : -EPERM;
}
