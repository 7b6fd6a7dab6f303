# A thin front: Meson builds into build/. See README.md.
.PHONY: all deps demo check bench decode-table soak-cpu fuzz format soak-wild soak-disk soak-saved
all: deps
	@[ -f build/build.ninja ] || meson setup build >/dev/null
	@ninja -C build

deps:
	@tools/install-deps

demo: all
	@tools/demo

check: all
	@tools/check

bench: all
	@bench/boot
	@bench/hypercall
	@bench/disk
	@bench/storage
	@d=$$(mktemp -d -p build) && build/image-bench $$d 100000; rm -rf $$d

# Long differential run: make soak-cpu COUNT=... SEED=...
soak-cpu: all
	build/differential_test $(or $(COUNT),10000000) $(or $(SEED),1)

# Guests of random bytes: make soak-wild COUNT=... SEED=...
soak-wild: all
	tests/guest/hostile.sh $(or $(SEED),1) $(or $(COUNT),1000)

# Power cuts, and servers killed: make soak-disk COUNT=... SEED=...
soak-disk: all
	build/crash_test $(or $(COUNT),1000000) $(or $(SEED),1)
	build/crash_chain_test $(or $(COUNT),20000) $(or $(SEED),1)
	build/seal_test $(or $(COUNT),10000) $(or $(COUNT),10000) $(or $(SEED),1)
	tests/disk/kill.py build/umbra 200 $(or $(SEED),1)

# Machines saved at random moments, and files that lie: make soak-saved COUNT=... SEED=...
soak-saved: all
	tests/guest/saved.sh 4 10 $(or $(SEED),1)
	tests/boot/saved.py build/umbra $(or $(SEED),1) $(or $(COUNT),1000)

format:
	@tools/format

# Long fuzz runs: make fuzz COUNT=... SEED=...
fuzz: all
	for f in ring boot decode hv bus saved vhdx formats image nbd; do build/fuzz-$$f $(or $(COUNT),10000000) $(or $(SEED),1) || exit 1; done

decode-table:
	cc -O2 -Wall -Wextra -o build/gen-decode-table tools/gen-decode-table.c -lZydis
	build/gen-decode-table >src/x86/decode_table.c
