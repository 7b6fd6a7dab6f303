# A thin front: Meson builds into build/. See README.md and CONTRIBUTING.md.
PARTS ?= umbra daemon agent client
.PHONY: all install deb deb-check demo check quick bench decode-table emission-whole fuzz fuzz-disks fuzz-shares format soak soak-cpu soak-wild soak-disk soak-saved soak-speculation foreign-kernels foreign-selftests foreign-kvm
all:
	@tools/install-deps build
	@[ -f build/build.ninja ] || meson setup build >/dev/null
	@ninja -C build umbra src/agent/umbra-agent src/builder/umbra-builder src/wire/umbra-wire

demo:
	@tools/install-deps build demo
	@$(MAKE) --no-print-directory all
	@tools/demo

check:
	@tools/install-deps build daemon headers
	@tools/check

# Under DESTDIR and PREFIX (/usr): make install DESTDIR=/tmp/x PARTS="umbra daemon agent client"
install: all
	@tools/install-deps daemon
	@ninja -C build umbrad src/agent/umbra-agent src/client/libumbra-client.a
	@tools/install build $(PARTS)

# Debian packages in build/deb/packages.
deb:
	@tools/install-deps build daemon package
	@tools/deb

# Packages of two builds in different folders are compared, then one is installed on a fresh Debian and used (root; a quarter of an hour).
deb-check: all
	@tools/install-deps build daemon package test
	@tests/package/same-bytes.sh build/deb-check
	@tests/package/fresh.sh build/deb-check/packages

# What takes less than 90 seconds.
quick: all
	@meson test -C build --suite quick

bench: all
	@ninja -C build bench/disk-bench bench/image-bench bench/snapshot-bench bench/guest-bench
	@bench/boot
	@bench/engine
	@bench/hypercall
	@bench/disk
	@bench/storage
	@bench/net build/umbra && bench/debian
	@ninja -C build umbra umbrad tests/guest/guest-spin && bench/start && bench/api && bench/page
	@d=$$(mktemp -d -p build) && build/bench/image-bench $$d 100000; rm -rf $$d

# For as long as you want, each of a suite's tests: make soak-cpu TIME=600 SEED=7 (seconds; the first seed)
export TIME SEED
soak soak-cpu soak-wild soak-disk soak-saved: all
	@meson test -C build --suite $@ --num-processes 1

# Every copy of every encoding, mode and prefix, looked at and executed (tests/cpu/emission_test.c): about half an hour. In pieces, each
# says where the next begins: make emission-whole TIME=500 FIRST=8
emission-whole: all
	@ninja -C build tests/cpu/emission_test
	@tests/cpu/emission-whole.sh build/tests/cpu/emission_test $(or $(FIRST),0)

# The same for the fuzz targets: make fuzz TIME=600 SEED=7
fuzz:
	@tools/check --build sanitized
	@meson test -C build/sanitized --suite soak-fuzz --num-processes 2

# Every kind of disk file, COUNT inputs each, without a sanitizer: make fuzz-disks COUNT=10000000 SEED=7 (hours)
fuzz-disks: all
	@ninja -C build tests/fuzz/fuzz-formats tests/fuzz/fuzz-vhdx tests/fuzz/fuzz-appliance
	@tests/fuzz/disks.sh build $(or $(COUNT),10000000) $(or $(SEED),1)

# Everything that takes messages of the channels between machines, COUNT of them for each, without a sanitizer, with the invariants' functions:
# make fuzz-shares COUNT=1000000 SEED=7 (some minutes each; ONLY="hub proxy")
fuzz-shares: all
	@[ -f build/checked/build.ninja ] || meson setup build/checked -Dchecks=true >/dev/null
	@ninja -C build/checked $(patsubst %,tests/fuzz/fuzz-%,$(or $(ONLY),share share-disk bus devices hub proxy policy-agent rules far far-stream saved-port))
	@tests/fuzz/shares.sh build/checked $(or $(COUNT),1000000) $(or $(SEED),1) $(ONLY)

# What the gadgets of speculation come to, and to what where the mend is left out, on this processor.
soak-speculation: all
	@[ -f build/unmended/build.ninja ] || meson setup build/unmended -Dunmended_speculation=true >/dev/null
	@ninja -C build/unmended umbra && ninja -C build guest-speculation
	tests/guest/speculation.py build/umbra build/unmended/umbra

# What others have built, in a folder of your own: make foreign-kernels DIR=/var/tmp/kernels (docs/foreign-kernels.md)
foreign-kernels foreign-selftests foreign-kvm: all
	@[ -n "$(DIR)" ] || { echo "make $@ DIR=FOLDER [ONLY=\"WORD...\"]: docs/foreign-kernels.md"; exit 64; }
	@[ $@ != foreign-kernels ] || tools/fetch-guest
	@case $@ in foreign-kernels) runner=kernels ;; foreign-selftests) runner=selftests-x86 ;; *) runner=kvm-unit-tests ;; esac; \
		tests/foreign/$$runner.sh "$(DIR)" $(ONLY)

format:
	@tools/format

# The instruction table, from Zydis (CONTRIBUTING.md, an instruction).
decode-table: build/build.ninja
	@ninja -C build tests/cpu/gen-decode-table
	build/tests/cpu/gen-decode-table >build/decode_table.c && mv build/decode_table.c src/x86/decode_table.c
	meson test -C build decode table emission
