/*
 * The kinds of refusals (refusal.h), included where each is to become something: name, -errno (0:
 * the host's), NOWHERE or AT (with an offset in the file), the structure by its specification's
 * name, what is expected, the remedy (NULL: that of the code, disk_remedy()).
 * tests/disk/refusals.py reads them, too.
 */
/* clang-format off */
/* Any file, and the host's. */
REFUSAL(HOST, 0, NOWHERE, "the host's answer",
	"an answer without an error",
	NULL)
REFUSAL(MEMORY, -ENOMEM, NOWHERE, "the host's memory",
	"room for what the file's tables need",
	NULL)
REFUSAL(OPEN, 0, NOWHERE, "the file",
	"one that is there and may be opened",
	NULL)
REFUSAL(IN_USE, -EBUSY, NOWHERE, "the file's lock",
	"nobody else who writes it, or reads what is to be written",
	NULL)
REFUSAL(MOVING, -EAGAIN, NOWHERE, "the file while it is read",
	"tables that stay the same for a moment",
	"try again when less is written")
REFUSAL(FORMAT, -EMEDIUMTYPE, NOWHERE, "the file's format",
	"the format that was said",
	NULL)
REFUSAL(NO_DISK, 0, NOWHERE, "the file's type",
	"a regular file or a block device",
	"name a file or a device")
REFUSAL(CANNOT_MAKE, -ENOTSUP, NOWHERE, "the format",
	"vhdx, vhd or raw; others come from convert",
	"make one of those, and convert it")
REFUSAL(READ_ONLY_FORMAT, -ENOTSUP, NOWHERE, "the format",
	"reading alone: files of it are written once",
	"convert it to vhdx, and write that")
REFUSAL(FROZEN, -EROFS, NOWHERE, "the file's freeze record",
	"a file that is not frozen",
	NULL)
REFUSAL(FREEZE_UNREADABLE, 0, NOWHERE, "the file's freeze record",
	"a record that can be read, or none",
	NULL)
REFUSAL(KNOWN_PARENT, 0, NOWHERE, "what the file knows of its parent's content",
	"a sound record of this version",
	NULL)
REFUSAL(CONTENT, 0, NOWHERE, "the disk's content",
	"all of it to be there, and as its child was made on it",
	NULL)
REFUSAL(OVERRIDE, 0, NOWHERE, "the file's history",
	"room for the note that a policy is overridden",
	"open it as a user who may write it")
REFUSAL(POLICY, -EPERM, NOWHERE, "a rule of a policy",
	"an action that the rules allow",
	"say --override REASON, which is recorded")
REFUSAL(POLICY_FIRM, -EPERM, NOWHERE, "a rule of a policy that is not passed over",
	"an action that the rules allow",
	"ask who set it")
REFUSAL(FILE_SYSTEMS, -EUCLEAN, NOWHERE, "the guest's file systems",
	"file systems that are known and sound",
	"check them in the guest, and shut it down")
/* Raw files. */
REFUSAL(RAW_EMPTY, -EBADMSG, NOWHERE, "the raw disk's length",
	"a sector of 512 bytes at least",
	NULL)
/* The chain. */
REFUSAL(CHAIN_LONG, -ELOOP, NOWHERE, "the chain of parents",
	"a chain that ends, of 1024 files at most",
	NULL)
REFUSAL(CHAIN_LOOP, -ELOOP, NOWHERE, "the chain of parents",
	"a file that is not its own parent",
	NULL)
REFUSAL(CHAIN_OPENS, -ELOOP, NOWHERE, "the search for parents",
	"parents that are found by opening 4096 files",
	NULL)
REFUSAL(PARENT_NOWHERE, -ENOENT, NOWHERE, "the parent's name",
	"the name of a file that is there",
	NULL)
REFUSAL(PARENT_PLACE, -EPERM, NOWHERE, "the parent's place",
	"a place that --parents allows, or the child's directory",
	NULL)
/* VHDX (MS-VHDX). */
REFUSAL(VHDX_TYPE, -EMEDIUMTYPE, AT, "file type identifier",
	"vhdxfile",
	NULL)
REFUSAL(VHDX_LENGTH, -ENOTSUP, NOWHERE, "the VHDX file's length",
	"1 MiB to 128 TiB",
	"restore it from a copy")
REFUSAL(VHDX_HEADERS, -EBADMSG, AT, "headers",
	"one of two (offsets 65536, 131072) that begins with head and has the right checksum",
	NULL)
REFUSAL(VHDX_VERSION, -ENOTSUP, AT, "header, Version and LogVersion",
	"versions 1 and 0",
	"convert it with the program that made it")
REFUSAL(VHDX_LOG_PLACE, -EBADMSG, AT, "header, LogLength and LogOffset",
	"whole MiB from 1 MiB on, within the file",
	NULL)
REFUSAL(VHDX_LOG_LARGE, -ENOTSUP, AT, "header, LogLength",
	"64 MiB at most",
	"open it once with the program that made it")
REFUSAL(VHDX_REGIONS, -EBADMSG, AT, "region tables",
	"one of two (offsets 196608, 262144) that begins with regi and has the right checksum",
	NULL)
REFUSAL(VHDX_REGION, -EBADMSG, AT, "region table entry",
	"whole MiB within the file, over no other region and not over the log",
	NULL)
REFUSAL(VHDX_REGION_TWICE, -EBADMSG, AT, "region table entry",
	"one BAT region and one metadata region",
	NULL)
REFUSAL(VHDX_REGION_UNKNOWN, -ENOTSUP, AT, "region table entry, Required",
	"BAT and metadata as the only required regions",
	"convert it with the program that made it")
REFUSAL(VHDX_REGION_MISSING, -EBADMSG, AT, "region table",
	"a BAT region and a metadata region",
	NULL)
REFUSAL(VHDX_REGION_LARGE, -ENOTSUP, AT, "region table entry, Length",
	"513 MiB of BAT and 128 MiB of metadata at most",
	"convert it with the program that made it")
REFUSAL(VHDX_METADATA, -EBADMSG, AT, "metadata table header",
	"the signature metadata and 2047 entries at most",
	NULL)
REFUSAL(VHDX_ITEM_PLACE, -EBADMSG, AT, "metadata table entry, Offset and Length",
	"1 MiB at most, behind the table and within its region",
	NULL)
REFUSAL(VHDX_ITEM_UNKNOWN, -ENOTSUP, AT, "metadata table entry, IsRequired",
	"no required item but the six of the specification",
	"convert it with the program that made it")
REFUSAL(VHDX_ITEM_TWICE, -EBADMSG, AT, "metadata table entry, ItemId",
	"each item once",
	NULL)
REFUSAL(VHDX_ITEM_LENGTH, -EBADMSG, AT, "metadata table entry, Length",
	"the length of that item",
	NULL)
REFUSAL(VHDX_ITEM_MISSING, -EBADMSG, AT, "metadata table",
	"file parameters, virtual disk size and identifier, both sector sizes",
	NULL)
REFUSAL(VHDX_PARAMETERS, -EBADMSG, AT, "file parameters",
	"known flags, and a parent locator if and only if HasParent is set",
	NULL)
REFUSAL(VHDX_BLOCK_SIZE, -EBADMSG, AT, "file parameters, BlockSize",
	"a power of two from 1 MiB to 256 MiB",
	NULL)
REFUSAL(VHDX_SECTOR_SIZE, -EBADMSG, AT, "logical and physical sector size",
	"512 or 4096 each",
	NULL)
REFUSAL(VHDX_DISK_SIZE, -EBADMSG, AT, "virtual disk size",
	"a whole number of sectors up to 64 TiB",
	NULL)
REFUSAL(VHDX_BAT_SHORT, -EBADMSG, AT, "BAT region",
	"an entry for each block and chunk of the disk",
	NULL)
REFUSAL(VHDX_BAT_ENTRY, -EBADMSG, AT, "BAT entry",
	"a state of the specification, and a place within the file that nothing else has",
	NULL)
REFUSAL(VHDX_BAT_BITMAP, -EBADMSG, AT, "BAT entry of a sector bitmap block",
	"a bitmap where a block of the chunk is partially present",
	NULL)
REFUSAL(VHDX_LOG_CUT, -EBADMSG, AT, "log entry header, FlushedFileOffset",
	"a file that is not shorter than its log knows it",
	NULL)
REFUSAL(VHDX_LOG_ENDLESS, -EBADMSG, AT, "log entry header, LastFileOffset",
	"128 TiB at most",
	NULL)
REFUSAL(VHDX_LOG_HOLE, -EBADMSG, AT, "log entry",
	"whole entries from the newest one's Tail to itself",
	NULL)
REFUSAL(VHDX_LOG_MEMORY, -EUCLEAN, AT, "log",
	"no more changes than are replayed in memory",
	NULL)
REFUSAL(VHDX_LOCATOR_TYPE, -ENOTSUP, AT, "parent locator header, LocatorType",
	"the type of VHDX parents, or Umbra's own",
	"open it with the program that made it")
REFUSAL(VHDX_LOCATOR, -EBADMSG, AT, "parent locator",
	"up to 64 pairs of texts within it",
	NULL)
REFUSAL(VHDX_LOCATOR_LINK, -EBADMSG, AT, "parent locator, parent_linkage",
	"the parent's data identifier; of another format umbra_format",
	NULL)
REFUSAL(VHDX_PARENT_DATA, -ESTALE, AT, "parent locator, parent_linkage",
	"the data identifier of the parent as it is",
	NULL)
REFUSAL(VHDX_PARENT_CONTENT, -ESTALE, AT, "parent locator",
	"a record of what a parent of another format held",
	NULL)
REFUSAL(VHDX_PARENT_SHAPE, -ESTALE, NOWHERE, "the parent's size and sectors",
	"the same sectors, and no more bytes than the child",
	NULL)
/* VHD (Virtual Hard Disk Image Format Specification). */
REFUSAL(VHD_SHORT, -EBADMSG, NOWHERE, "the VHD file's length",
	"1024 bytes at least: data and a hard disk footer",
	NULL)
REFUSAL(VHD_FOOTER, -EBADMSG, AT, "hard disk footer",
	"conectix, version 1 and the right checksum, at the start or the end",
	NULL)
REFUSAL(VHD_TYPE, -ENOTSUP, AT, "hard disk footer, Disk Type",
	"2 (fixed), 3 (dynamic) or 4 (differencing)",
	"convert it with the program that made it")
REFUSAL(VHD_SIZE, -EBADMSG, AT, "hard disk footer, Current Size",
	"a whole number of sectors up to 2040 GiB",
	NULL)
REFUSAL(VHD_FIXED_CUT, -EBADMSG, AT, "hard disk footer, Current Size",
	"a file that holds all of the disk",
	NULL)
REFUSAL(VHD_HEADER_PLACE, -EBADMSG, AT, "hard disk footer, Data Offset",
	"the place of a dynamic disk header within the file",
	NULL)
REFUSAL(VHD_HEADER, -EBADMSG, AT, "dynamic disk header",
	"cxsparse and the right checksum",
	NULL)
REFUSAL(VHD_BLOCK_SIZE, -EBADMSG, AT, "dynamic disk header, Block Size",
	"a power of two from 4 KiB to 256 MiB",
	NULL)
REFUSAL(VHD_TABLE, -EBADMSG, AT, "dynamic disk header, Table Offset and Max Table Entries",
	"an entry for each block, at a sector behind the headers and within the file",
	NULL)
REFUSAL(VHD_ENTRY_TABLES, -EBADMSG, AT, "BAT entry",
	"a block behind the tables",
	NULL)
REFUSAL(VHD_ENTRY_CUT, -EBADMSG, AT, "BAT entry",
	"a block within the file",
	NULL)
REFUSAL(VHD_ENTRY_FOOTER, -EBADMSG, AT, "BAT entry",
	"a block in front of the footer",
	NULL)
REFUSAL(VHD_OVERLAP, -EBADMSG, AT, "block allocation table",
	"blocks that do not lie over each other",
	NULL)
REFUSAL(VHD_PARENT_ID, -ESTALE, AT, "dynamic disk header, Parent Unique ID",
	"the unique identifier of the parent as it is",
	NULL)
REFUSAL(VHD_PARENT_SIZE, -ESTALE, NOWHERE, "the parent's size",
	"no more bytes than the child has",
	NULL)
REFUSAL(VHD_END, -EBADMSG, NOWHERE, "hard disk footer at the end",
	"a valid footer in the last 512 bytes",
	"copy it with umbra disk convert; who writes it next makes one, too")
REFUSAL(VHD_FOOTERS, -EBADMSG, AT, "hard disk footer at the end",
	"the same as the copy at offset 0",
	"copy it with umbra disk convert")
/* qcow2 (QEMU's docs/interop/qcow2). */
REFUSAL(QCOW2_MAGIC, -EBADMSG, AT, "qcow2 header, magic",
	"QFI and 0xfb",
	NULL)
REFUSAL(QCOW2_SHORT, -EBADMSG, NOWHERE, "the qcow2 file's length",
	"a header of 72 bytes at least",
	NULL)
REFUSAL(QCOW2_VERSION, -ENOTSUP, AT, "qcow2 header, version",
	"2 or 3",
	"convert it with qemu-img")
REFUSAL(QCOW2_CLUSTER, -EBADMSG, AT, "qcow2 header, cluster_bits",
	"9 to 21; with subclusters 14 at least",
	NULL)
REFUSAL(QCOW2_SIZE, -EBADMSG, AT, "qcow2 header, size",
	"a sector at least, 64 TiB at most",
	NULL)
REFUSAL(QCOW2_CORRUPT, -EBADMSG, AT, "qcow2 header, incompatible_features",
	"the bit for a corrupt image to be clear",
	"repair it with qemu-img check -r all, or restore it from a copy")
REFUSAL(QCOW2_CRYPT, -ENOTSUP, AT, "qcow2 header, crypt_method",
	"0: not encrypted",
	"convert it with qemu-img, which asks for the secret")
REFUSAL(QCOW2_EXTERNAL, -ENOTSUP, AT, "qcow2 header, incompatible_features",
	"no external data file",
	"convert it with qemu-img")
REFUSAL(QCOW2_FEATURE, -ENOTSUP, AT, "qcow2 header, incompatible_features",
	"dirty, compression type and extended L2 entries alone",
	"convert it with qemu-img")
REFUSAL(QCOW2_COMPRESSION, -ENOTSUP, AT, "qcow2 header, compression_type",
	"0 (deflate) or 1 (zstd)",
	"convert it with qemu-img")
REFUSAL(QCOW2_L1, -EBADMSG, AT, "qcow2 header, l1_size and l1_table_offset",
	"a first table (L1) for all of the disk, aligned and within the file",
	NULL)
REFUSAL(QCOW2_BACKING_NAME, -EBADMSG, AT,
	"qcow2 header, backing_file_offset and backing_file_size",
	"a name of 1 to 1023 bytes within the file",
	NULL)
REFUSAL(QCOW2_BACKING_FORMAT, -ENOTSUP, AT, "qcow2 header extension, backing file format name",
	"a known format: raw, qcow2, vmdk, vpc, vhdx",
	"say it with qemu-img rebase -u -F FORMAT")
REFUSAL(QCOW2_BACKING_PATH, -ENOTSUP, AT, "qcow2 backing file name",
	"a plain path",
	"name a plain path with qemu-img rebase -u")
REFUSAL(QCOW2_BACKING_SECTORS, -ENOTSUP, NOWHERE, "the backing file's sectors",
	"sectors of 512 bytes",
	"convert the backing file")
REFUSAL(QCOW2_L1_ENTRY, -EBADMSG, AT, "L1 table entry",
	"the offset of an L2 table, of whole clusters",
	NULL)
REFUSAL(QCOW2_L1_ENTRY_CUT, -ENODATA, AT, "L1 table entry",
	"an L2 table within the file, which may have been cut off",
	NULL)
REFUSAL(QCOW2_L2_ENTRY, -EBADMSG, AT, "L2 table entry",
	"the offset of a cluster, of whole clusters",
	NULL)
REFUSAL(QCOW2_L2_ENTRY_CUT, -ENODATA, AT, "L2 table entry",
	"a cluster within the file, which may have been cut off",
	NULL)
REFUSAL(QCOW2_PACKED, -EBADMSG, AT, "compressed cluster",
	"data that unpack to a whole cluster",
	NULL)
REFUSAL(QCOW2_SNAPSHOTS, -ENOTSUP, AT, "qcow2 header, nb_snapshots",
	"0, where clusters are given back",
	"delete them with qemu-img snapshot")
REFUSAL(QCOW2_DIRTY, -ENOTSUP, AT, "qcow2 header, incompatible_features",
	"a file that was closed, where clusters are given back",
	"repair it with qemu-img check -r all")
REFUSAL(QCOW2_AUTOCLEAR, -ENOTSUP, AT, "qcow2 header, autoclear_features",
	"0 (no bitmaps), where clusters are given back",
	"remove them with qemu-img bitmap, or convert it")
REFUSAL(QCOW2_COUNT_ORDER, -ENOTSUP, AT, "qcow2 header, refcount_order",
	"0 to 6",
	NULL)
REFUSAL(QCOW2_NO_ZERO, -ENOTSUP, AT, "qcow2 header, version",
	"3, where a child's clusters are given back",
	"say qemu-img amend -o compat=1.1")
REFUSAL(QCOW2_SHRINK_L1, -EBADMSG, AT, "qcow2 header, l1_size and l1_table_offset",
	"a table of up to 32 MiB of whole clusters",
	NULL)
REFUSAL(QCOW2_SHRINK_COUNTS, -EBADMSG, AT,
	"qcow2 header, refcount_table_offset and refcount_table_clusters",
	"a table of up to 8 MiB of whole clusters",
	NULL)
REFUSAL(QCOW2_SHRINK_TABLES, -EBADMSG, AT, "qcow2 tables",
	"clusters within the file, each counted as often as it is named",
	"repair it with qemu-img check -r all, or restore it from a copy")
REFUSAL(QCOW2_SHRINK_LARGE, -ENOTSUP, NOWHERE, "the qcow2 file's length",
	"2^27 clusters at most, where they are given back",
	"convert it")
/* VMDK (Virtual Disk Format 5.0). */
REFUSAL(VMDK_MAGIC, -EBADMSG, AT, "sparse extent header, magicNumber",
	"KDMV",
	NULL)
REFUSAL(VMDK_FOOTER, -EBADMSG, AT, "footer of a stream-optimised extent",
	"a copy of the header, KDMV, as gdOffset says; it was cut off",
	NULL)
REFUSAL(VMDK_VERSION, -ENOTSUP, AT, "sparse extent header, version",
	"1 to 3",
	"convert it with the program that made it")
REFUSAL(VMDK_TABLES, -ENOTSUP, AT, "sparse extent header, numGTEsPerGT",
	"512",
	"convert it with the program that made it")
REFUSAL(VMDK_COMPRESSION, -ENOTSUP, AT, "sparse extent header, compressAlgorithm",
	"1 (deflate)",
	"convert it with the program that made it")
REFUSAL(VMDK_CAPACITY, -EBADMSG, AT, "sparse extent header, capacity",
	"a sector at least, 64 TiB at most",
	NULL)
REFUSAL(VMDK_GRAIN_SIZE, -EBADMSG, AT, "sparse extent header, grainSize",
	"a power of two up to 2048 sectors",
	NULL)
REFUSAL(VMDK_GRAINS, -ENOTSUP, AT, "sparse extent header, capacity and grainSize",
	"2^26 grains at most of all extents",
	"convert it with the program that made it")
REFUSAL(VMDK_DIRECTORY, -EBADMSG, AT, "sparse extent header, gdOffset",
	"a grain directory within the file",
	NULL)
REFUSAL(VMDK_TABLE, -EBADMSG, AT, "grain directory entry",
	"a grain table within the file",
	NULL)
REFUSAL(VMDK_GRAIN_CUT, -ENODATA, AT, "grain table entry",
	"a grain within the file, which may have been cut off",
	NULL)
REFUSAL(VMDK_MARKER, -EBADMSG, AT, "compressed grain marker, size",
	"the length of a compressed grain",
	NULL)
REFUSAL(VMDK_MARKER_CUT, -ENODATA, AT, "compressed grain marker, size",
	"a compressed grain within the file, which may have been cut off",
	NULL)
REFUSAL(VMDK_PACKED, -EBADMSG, AT, "compressed grain",
	"data that unpack to a whole grain",
	NULL)
REFUSAL(VMDK_DESCRIPTOR_PLACE, -EBADMSG, AT,
	"sparse extent header, descriptorOffset and descriptorSize",
	"up to 1 MiB within the file",
	NULL)
REFUSAL(VMDK_DESCRIPTOR_LARGE, -EBADMSG, AT, "descriptor",
	"a text of 1 MiB at most",
	NULL)
REFUSAL(VMDK_BEGINS, -EBADMSG, AT, "the VMDK file's start",
	"# Disk DescriptorFile, or KDMV of a sparse extent",
	NULL)
REFUSAL(VMDK_PIECE, -ENOTSUP, AT, "extent without a descriptor",
	"a descriptor: this is one piece of a disk",
	"open the descriptor beside it")
REFUSAL(VMDK_LINE, -EBADMSG, AT, "extent description",
	"ACCESS SECTORS TYPE \"NAME\" OFFSET",
	NULL)
REFUSAL(VMDK_ACCESS, -ENOTSUP, AT, "extent description, access",
	"RW or RDONLY; NOACCESS of kind ZERO alone",
	"ask who made it, and convert it there")
REFUSAL(VMDK_EXTENTS, -EBADMSG, AT, "extent description, size",
	"65536 extents at most, of a sector at least and 64 TiB together",
	NULL)
REFUSAL(VMDK_KIND, -ENOTSUP, AT, "extent description, type",
	"FLAT, VMFS, SPARSE, ZERO, SESPARSE or VMFSSPARSE",
	"convert it with the program that made it")
REFUSAL(VMDK_NAME, -EPERM, AT, "extent description, file name",
	"the name of a file beside the descriptor",
	"move the extent beside it, and say its plain name")
REFUSAL(VMDK_EXTENT_OPEN, 0, AT, "extent description, file name",
	"a file that is there and may be opened",
	NULL)
REFUSAL(VMDK_EXTENT_SHORT, -EBADMSG, AT, "extent description, size and offset",
	"an extent that is as long as is said of it",
	NULL)
REFUSAL(VMDK_NO_EXTENTS, -EBADMSG, AT, "descriptor",
	"an extent at least",
	NULL)
REFUSAL(VMDK_NO_PARENT_NAME, -EBADMSG, AT, "descriptor, parentFileNameHint",
	"the parent's name, where parentCID says that there is one",
	NULL)
REFUSAL(VMDK_PARENT_FORMAT, -ESTALE, NOWHERE, "the parent's format",
	"a VMDK file",
	NULL)
REFUSAL(VMDK_PARENT_SIZE, -ENOTSUP, NOWHERE, "the parent's size",
	"no more bytes than the child has",
	"restore it from a copy")
REFUSAL(VMDK_PARENT_CID, -ESTALE, AT, "descriptor, parentCID",
	"the CID of the parent as it is",
	NULL)
/* VMFSSPARSE extents (COWD). */
REFUSAL(COWD_MAGIC, -EBADMSG, AT, "COWDisk header, magicNumber",
	"COWD",
	NULL)
REFUSAL(COWD_VERSION, -ENOTSUP, AT, "COWDisk header, version",
	"1",
	"convert it with the program that made it")
REFUSAL(COWD_SIZE, -EBADMSG, AT, "COWDisk header, numSectors",
	"a sector at least",
	NULL)
REFUSAL(COWD_GRAIN, -EBADMSG, AT, "COWDisk header, grainSize",
	"1 to 65536 sectors",
	NULL)
REFUSAL(COWD_ENTRIES, -EBADMSG, AT, "COWDisk header, numGDEntries",
	"a grain table for each 4096 grains",
	NULL)
REFUSAL(COWD_DIRECTORY, -ENODATA, AT, "COWDisk header, gdOffset",
	"a grain directory behind the header and within the file",
	NULL)
REFUSAL(COWD_TABLE_CUT, -ENODATA, AT, "grain directory entry of a COWDisk",
	"a grain table within the file, which may have been cut off",
	NULL)
REFUSAL(COWD_GRAIN_ENTRY, -EBADMSG, AT, "grain table entry of a COWDisk",
	"a grain behind the header",
	NULL)
REFUSAL(COWD_GRAIN_CUT, -ENODATA, AT, "grain table entry of a COWDisk",
	"a grain within the file, which may have been cut off",
	NULL)
/* SESPARSE extents: not published, the names are ours. */
REFUSAL(SESPARSE_MAGIC, -EBADMSG, AT, "SESparse header, magic",
	"cafebabe",
	NULL)
REFUSAL(SESPARSE_VERSION, -ENOTSUP, AT, "SESparse header, version, grain, table and flags",
	"version 2.1, grains of 8 sectors, tables of 64, no flags",
	"convert it with the program that made it")
REFUSAL(SESPARSE_SIZE, -EBADMSG, AT, "SESparse header, capacity",
	"a sector at least, 64 TiB at most",
	NULL)
REFUSAL(SESPARSE_VOLATILE, -EBADMSG, AT, "SESparse header, volatile header",
	"the place of one that begins with cafecafe, within the file",
	NULL)
REFUSAL(SESPARSE_JOURNAL, -ENOTSUP, AT, "SESparse volatile header, replay journal",
	"0: a file that was closed",
	"open it once with ESX, which replays its journal")
REFUSAL(SESPARSE_PLACES, -EBADMSG, AT, "SESparse header, grain tables and grains",
	"places below 64 TiB",
	NULL)
REFUSAL(SESPARSE_DIRECTORY, -ENODATA, AT, "SESparse header, grain directory",
	"a directory for all of the disk within the file",
	NULL)
REFUSAL(SESPARSE_TABLE, -EBADMSG, AT, "SESparse grain directory entry",
	"a table's number below theirs",
	NULL)
REFUSAL(SESPARSE_TABLE_CUT, -ENODATA, AT, "SESparse grain directory entry",
	"a table within the file, which may have been cut off",
	NULL)
REFUSAL(SESPARSE_GRAIN, -EBADMSG, AT, "SESparse grain table entry",
	"a kind and a number that are possible",
	NULL)
REFUSAL(SESPARSE_GRAIN_CUT, -ENODATA, AT, "SESparse grain table entry",
	"a grain within the file, which may have been cut off",
	NULL)
/* Packages (OVF 1.1, DSP0243; in one file, a tar archive: OVA). */
REFUSAL(OVF_XML, -EBADMSG, AT, "OVF descriptor",
	"XML of up to 4 MiB, without a document type, with names of up to 255 bytes",
	"ask who made it for another copy")
REFUSAL(OVF_FILE, 0, AT, "OVF descriptor, File",
	"up to 64 files, each whole, not compressed, and beside the descriptor by its plain name",
	"unpack it, and convert the disk")
REFUSAL(OVF_DISK, 0, AT, "OVF descriptor, Disk",
	"1 to 64 disks of up to 64 TiB, no children, each in a file that is named",
	"unpack it, and convert the disk")
REFUSAL(OVF_MACHINE, -ENOTSUP, AT, "OVF descriptor, VirtualSystem",
	"one machine",
	"unpack it, and convert the disk")
REFUSAL(OVF_CAPACITY, -EBADMSG, AT, "OVF descriptor, capacity of a Disk",
	"the size of the disk that is in its file",
	"ask who made it; or unpack it, and convert the file")
REFUSAL(OVF_FORMAT, -ENOTSUP, AT, "OVF descriptor, format of a Disk",
	"vmdk or qcow2",
	"unpack it, and convert the file")
REFUSAL(OVF_LENGTH, -EBADMSG, AT, "OVF descriptor, size of a File",
	"a file that is there, and as long as is said of it",
	"ask who made it for another copy")
REFUSAL(OVF_MANIFEST_LINE, 0, AT, "manifest",
	"lines SHA1(NAME)= DIGEST or SHA256(NAME)= DIGEST, for up to 128 files",
	"ask who made it for another copy")
REFUSAL(OVF_DIGEST, -EBADMSG, AT, "manifest",
	"the digest of each file as it is",
	"ask who made it for another copy")
REFUSAL(OVA_TAR, -EBADMSG, AT, "tar header",
	"the header of a file in a tar archive",
	"ask who made it for another copy")
REFUSAL(OVA_FILE, 0, AT, "tar header",
	"up to 1024 plain files with plain names, each once and none larger than the archive",
	"ask who made it for another copy")
REFUSAL(OVA_CONTENT, -EBADMSG, AT, "tar file content",
	"as many bytes as its header says",
	"ask who made it for another copy")
REFUSAL(OVA_ORDER, -EBADMSG, AT, "tar file content",
	"the descriptor (.ovf) first, then one manifest at most",
	"ask who made it for another copy")
/* What was asked. */
REFUSAL(MAKE_BLOCK, -EINVAL, NOWHERE, "the block size asked for",
	"a power of two: of VHDX 1M to 256M, of VHD 4K to 256M, of qcow2 4K to 2M",
	"say another --block-size")
REFUSAL(MAKE_SECTOR, -EINVAL, NOWHERE, "the sector size asked for",
	"512; of VHDX also 4096",
	"say another --sector-size")
REFUSAL(MAKE_SIZE, -EINVAL, NOWHERE, "the size asked for",
	"a whole number of sectors: up to 64 TiB, of VHD 2040 GiB, of stream-optimised VMDK "
	"4 TiB",
	"say another size, or format")
REFUSAL(MAKE_CLUSTERS, -EINVAL, NOWHERE, "the cluster size asked for",
	"clusters that are large enough for a first table of 32 MiB",
	"say a larger --block-size")
REFUSAL(MAKE_CHILD, -EINVAL, NOWHERE, "the child asked for",
	"not fixed, of VHDX on any parent, of VHD on VHD; of other formats none",
	"say --format vhdx")
REFUSAL(NO_PARENT_FORMAT, -EINVAL, NOWHERE, "the parent asked for",
	"none: files of this format are written without one",
	"leave --parent out")
REFUSAL(PIPE_FORMAT, -EINVAL, NOWHERE, "the format asked for",
	"raw or vmdk, which are written without going back",
	"say --to raw or --to vmdk")
REFUSAL(NO_CHILD, -EINVAL, NOWHERE, "the file",
	"a child that can be written, with its parent",
	"name a child")
REFUSAL(COMMIT_FORMAT, -ENOTSUP, NOWHERE, "the parent's format",
	"a VHDX file, to be written",
	"convert the child instead")
REFUSAL(COMMIT_GROWN, -EBUSY, NOWHERE, "the disk's size",
	"the size that it was opened with",
	"open it again")
REFUSAL(COMMIT_CHANGED, -ESTALE, NOWHERE, "the parent's data identifier",
	"the one that it had a moment ago",
	NULL)
REFUSAL(REBASE_LOOP, -ELOOP, NOWHERE, "the parent asked for",
	"a file that is not made on the child",
	"name another parent")
REFUSAL(REBASE_SHAPE, -EINVAL, NOWHERE, "the parent asked for",
	"the same sectors, and no more bytes than the child",
	"name another parent")
REFUSAL(NO_ANCESTOR, -EINVAL, NOWHERE, "the parent asked for (--since)",
	"a file of the chain below the disk",
	"name one that umbra disk info shows")
REFUSAL(COPY_TARGET, -EINVAL, NOWHERE, "the copy's target",
	"a file that can be written, of the same size; of raw larger",
	"name another target")
REFUSAL(SNAPSHOT_FORMAT, -ENOTSUP, NOWHERE, "the format",
	"VHDX, to be a parent while it is in use",
	"stop its user, or convert it to vhdx")
REFUSAL(HAS_CHILD, -EBUSY, NOWHERE, "the file's children",
	"no file that is made on it in the places looked at",
	"commit or delete the child first")
/* clang-format on */
