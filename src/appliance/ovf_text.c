/* See ovf.h: writing a descriptor; manifests. */
#include "ovf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK_FORMAT "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
#define SCHEMA "http://schemas.dmtf.org/"
enum { CONTROLLER = 3, FIRST_DISK = 4, DISKS_OF_CONTROLLER = 15 };

/* ---- a descriptor ---- */

static void put_escaped(FILE *to, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '&': fputs("&amp;", to); break;
		case '<': fputs("&lt;", to); break;
		case '>': fputs("&gt;", to); break;
		case '"': fputs("&quot;", to); break;
		default: fputc((unsigned char)*text < 0x20 ? '?' : *text, to);
		}
}

static void put_item(FILE *to, const char *name, unsigned id, const char *more)
{
	fprintf(to,
		"      <Item>\n        <rasd:ElementName>%s</rasd:ElementName>\n"
		"        <rasd:InstanceID>%u</rasd:InstanceID>\n",
		name, id);
	fputs(more, to);
	fputs("      </Item>\n", to);
}

static void put_files(FILE *to, const struct ovf *ovf)
{
	fputs("  <References>\n", to);
	for (unsigned n = 0; n < ovf->disks; n++) {
		fputs("    <File ovf:href=\"", to);
		put_escaped(to, ovf->disk[n].file);
		fprintf(to, "\" ovf:id=\"file%u\" ovf:size=\"%lu\"/>\n", n + 1,
			ovf->disk[n].file_bytes);
	}
	fputs("  </References>\n  <DiskSection>\n    <Info>Disks of the machine</Info>\n", to);
	for (unsigned n = 0; n < ovf->disks; n++)
		fprintf(to,
			"    <Disk ovf:capacity=\"%lu\" ovf:capacityAllocationUnits=\"byte\" "
			"ovf:diskId=\"disk%u\" ovf:fileRef=\"file%u\" ovf:format=\"" DISK_FORMAT
			"\"/>\n",
			ovf->disk[n].size_bytes, n + 1, n + 1);
	fputs("  </DiskSection>\n", to);
}

/* As little as a machine can have: a processor, memory, a controller and the disks. */
static void put_hardware(FILE *to, const struct ovf *ovf)
{
	fputs("    <VirtualHardwareSection>\n      <Info>Virtual hardware</Info>\n", to);
	put_item(to, "1 processor", 1,
		 "        <rasd:ResourceType>3</rasd:ResourceType>\n"
		 "        <rasd:VirtualQuantity>1</rasd:VirtualQuantity>\n");
	fputs("      <Item>\n        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>\n"
	      "        <rasd:ElementName>1024 MiB of memory</rasd:ElementName>\n"
	      "        <rasd:InstanceID>2</rasd:InstanceID>\n"
	      "        <rasd:ResourceType>4</rasd:ResourceType>\n"
	      "        <rasd:VirtualQuantity>1024</rasd:VirtualQuantity>\n      </Item>\n",
	      to);
	put_item(to, "SCSI controller", CONTROLLER,
		 "        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>\n"
		 "        <rasd:ResourceType>6</rasd:ResourceType>\n");
	for (unsigned n = 0; n < ovf->disks; n++) {
		fprintf(to,
			"      <Item>\n        <rasd:AddressOnParent>%u</rasd:AddressOnParent>\n"
			"        <rasd:ElementName>disk %u</rasd:ElementName>\n"
			"        <rasd:HostResource>ovf:/disk/disk%u</rasd:HostResource>\n",
			n % DISKS_OF_CONTROLLER, n + 1, n + 1);
		fprintf(to,
			"        <rasd:InstanceID>%u</rasd:InstanceID>\n"
			"        <rasd:Parent>%d</rasd:Parent>\n"
			"        <rasd:ResourceType>17</rasd:ResourceType>\n      </Item>\n",
			n + FIRST_DISK, CONTROLLER);
	}
	fputs("    </VirtualHardwareSection>\n", to);
}

char *ovf_text(const struct ovf *ovf)
{
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);
	bool failed;

	if (!to)
		return NULL;
	fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	      "<Envelope xmlns=\"" SCHEMA "ovf/envelope/1\" xmlns:ovf=\"" SCHEMA "ovf/envelope/1\" "
	      "xmlns:rasd=\"" SCHEMA "wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\""
	      ">\n",
	      to);
	put_files(to, ovf);
	fputs("  <VirtualSystem ovf:id=\"", to);
	put_escaped(to, ovf->name);
	fputs("\">\n    <Info>A machine</Info>\n    <Name>", to);
	put_escaped(to, ovf->name);
	fputs("</Name>\n    <OperatingSystemSection ovf:id=\"1\">\n      <Info>Not said</Info>\n"
	      "    </OperatingSystemSection>\n",
	      to);
	put_hardware(to, ovf);
	fputs("  </VirtualSystem>\n</Envelope>\n", to);
	failed = ferror(to);
	if (fclose(to) || failed) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- a manifest ---- */

static int digit(char character)
{
	if (!isxdigit((unsigned char)character))
		return -1;
	return isdigit((unsigned char)character) ? character - '0' : tolower(character) - 'a' + 10;
}

static bool parse_digest(const char *text, uint8_t *to, unsigned bytes)
{
	for (unsigned n = 0; n < 2 * bytes; n++) {
		int value = digit(text[n]);

		if (value < 0)
			return false;
		to[n / 2] = (uint8_t)(to[n / 2] << 4 | value);
	}
	return !text[2 * bytes + strspn(text + 2 * bytes, " \t")];
}

/* SHA1(NAME)= HEX */
static int read_line(char *line, struct ovf_sum *ret, struct ovf_error *error)
{
	char *name = strchr(line, '(');
	char *end = name ? strrchr(name, ')') : NULL;
	char *digest = end ? strchr(end, '=') : NULL;

	*ret = (struct ovf_sum){ .is_sha1 = !strncmp(line, "SHA1", 4) };
	if (!digest) {
		snprintf(error->text, sizeof(error->text), "is not SHA256(NAME)= DIGEST");
		return -EBADMSG;
	}
	*name++ = *end = 0;
	if (strcmp(line, "SHA1") && strcmp(line, "SHA256")) {
		snprintf(error->text, sizeof(error->text),
			 "has a digest that is not SHA1 or SHA256");
		return -ENOTSUP;
	}
	digest += 1 + strspn(digest + 1, " \t");
	if (!ovf_is_plain(name) ||
	    !parse_digest(digest, ret->digest, ret->is_sha1 ? SHA1_BYTES : SHA256_BYTES)) {
		snprintf(error->text, sizeof(error->text),
			 "has a name that is no plain one, or a digest that is none");
		return -EBADMSG;
	}
	strcpy(ret->file, name);
	return 0;
}

int ovf_manifest_read(const char *text, size_t bytes, struct ovf_manifest *ret,
		      struct ovf_error *error)
{
	char *copy = strndup(text, bytes);
	char *next = copy;
	unsigned number = 0;
	int result = copy ? 0 : -ENOMEM;

	*ret = (struct ovf_manifest){ .sums = 0 };
	for (char *line; !result && (line = strsep(&next, "\n"));) {
		struct ovf_error why = { .text = "is one too many" };
		const size_t at = (size_t)(line - copy);

		number++;
		line[strcspn(line, "\r")] = 0;
		if (!*line)
			continue;
		result = ret->sums == sizeof(ret->sum) / sizeof(ret->sum[0])
				 ? -EBADMSG
				 : read_line(line, &ret->sum[ret->sums++], &why);
		if (!result)
			continue;
		*error = (struct ovf_error){ .part = OVF_MANIFEST_LINE, .offset = at };
		snprintf(error->text, sizeof(error->text), "line %u %.200s", number, why.text);
	}
	free(copy);
	return result;
}

const struct ovf_sum *ovf_manifest_of(const struct ovf_manifest *manifest, const char *file)
{
	for (unsigned n = 0; n < manifest->sums; n++)
		if (!strcmp(manifest->sum[n].file, file))
			return &manifest->sum[n];
	return NULL;
}
