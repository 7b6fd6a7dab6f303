"""What the API of umbrad can be asked, one method each. Made by tools/gen-client of its OpenAPI document: not changed by hand."""


class Operations:
    def list_machines(self):
        """All machines that run or are described."""
        return self._call("GET", "/v1/machines", {}, {}, None)

    def create_machine(self, name, start=None, kernel=None, initrd=None, append=None, memory=None, memory_min=None, cpus=None,
                       cpu_model=None, mitigations=None, hv=None, no_bus=None, overhead=None, console=None, socket=None, disks=None,
                       parents=None, override=None, networks=None, ports=None, serve=None, bind=None, time_limit=None, guest_forks=None,
                       restore=None, image=None, idempotency_key=None):
        """Describes a machine, and may start it."""
        return self._call("POST", "/v1/machines", {}, {},
                          {"name": name, "start": start, "kernel": kernel, "initrd": initrd, "append": append, "memory": memory, "memory-min": memory_min, "cpus": cpus, "cpu-model": cpu_model, "mitigations": mitigations, "hv": hv, "no-bus": no_bus, "overhead": overhead, "console": console, "socket": socket, "disks": disks, "parents": parents, "override": override, "networks": networks, "ports": ports, "serve": serve, "bind": bind, "time-limit": time_limit, "guest-forks": guest_forks, "restore": restore, "image": image},
                          idempotency_key)

    def get_machine(self, machine):
        """One machine."""
        return self._call("GET", "/v1/machines/{machine}", {"machine": machine}, {}, None)

    def forget_machine(self, machine, idempotency_key=None):
        """Forgets one that does not run."""
        return self._call("DELETE", "/v1/machines/{machine}", {"machine": machine}, {}, None, idempotency_key)

    def start_machine(self, machine, idempotency_key=None):
        """Starts one that was described."""
        return self._call("POST", "/v1/machines/{machine}/start", {"machine": machine}, {}, None, idempotency_key)

    def pause_machine(self, machine, idempotency_key=None):
        """Has it stand still."""
        return self._call("POST", "/v1/machines/{machine}/pause", {"machine": machine}, {}, None, idempotency_key)

    def resume_machine(self, machine, idempotency_key=None):
        """Lets it go on; 409 where it does not stand still."""
        return self._call("POST", "/v1/machines/{machine}/resume", {"machine": machine}, {}, None, idempotency_key)

    def stop_machine(self, machine, idempotency_key=None):
        """Asks its guest to power off; half a minute later it ends."""
        return self._call("POST", "/v1/machines/{machine}/stop", {"machine": machine}, {}, None, idempotency_key)

    def kill_machine(self, machine, idempotency_key=None):
        """Ends it at once."""
        return self._call("POST", "/v1/machines/{machine}/kill", {"machine": machine}, {}, None, idempotency_key)

    def fork_machine(self, machine, name=None, count=None, suspend_parent=None, end_parent=None, console=None, disks=None,
                     idempotency_key=None):
        """Makes machines of it, all of one moment."""
        return self._call("POST", "/v1/machines/{machine}/fork", {"machine": machine}, {},
                          {"name": name, "count": count, "suspend-parent": suspend_parent, "end-parent": end_parent, "console": console, "disks": disks},
                          idempotency_key)

    def save_machine(self, machine, file, stop=None, replace=None, compress=None, idempotency_key=None):
        """Writes the whole machine to a file."""
        return self._call("POST", "/v1/machines/{machine}/save", {"machine": machine}, {},
                          {"file": file, "stop": stop, "replace": replace, "compress": compress}, idempotency_key)

    def restore_machine(self, name, file, console=None, idempotency_key=None):
        """Goes on from a saved machine."""
        return self._call("POST", "/v1/restore", {}, {}, {"name": name, "file": file, "console": console}, idempotency_key)

    def get_registers(self, machine):
        """Where its processors are, and what it counts."""
        return self._call("GET", "/v1/machines/{machine}/registers", {"machine": machine}, {}, None)

    def set_machine_memory(self, machine, bytes, idempotency_key=None):
        """How much memory its guest shall have."""
        return self._call("PUT", "/v1/machines/{machine}/memory", {"machine": machine}, {}, {"bytes": bytes}, idempotency_key)

    def get_machine_memory(self, machine):
        """What its guest has and needs."""
        return self._call("GET", "/v1/machines/{machine}/memory", {"machine": machine}, {}, None)

    def run_program(self, machine, command, env=None, input=None, idempotency_key=None):
        """Runs a program in the machine, and answers what it said."""
        return self._call("POST", "/v1/machines/{machine}/exec", {"machine": machine}, {}, {"command": command, "env": env, "input": input},
                          idempotency_key)

    def get_screenshot(self, machine):
        """What is on its screen."""
        return self._call("GET", "/v1/machines/{machine}/screenshot", {"machine": machine}, {}, None)

    def trace_machine(self, machine, seconds, kinds=None):
        """What its processors leave translated code for meanwhile, as Chrome and Perfetto show it."""
        return self._call("GET", "/v1/machines/{machine}/trace", {"machine": machine}, {"seconds": seconds, "kinds": kinds}, None)

    def get_memory(self):
        """All machines whose memory is adjusted, the host, and the last moves."""
        return self._call("GET", "/v1/memory", {}, {}, None)

    def set_reserve(self, size, idempotency_key=None):
        """How much of the host's memory guests never get."""
        return self._call("PUT", "/v1/memory/reserve", {}, {}, {"size": size}, idempotency_key)

    def get_bus(self, of=None):
        """Channels between machines, and what was decided about them."""
        return self._call("GET", "/v1/bus", {}, {"of": of}, None)

    def get_memory_history(self):
        """The last five minutes of them, a sample a second, in MiB."""
        return self._call("GET", "/v1/memory/history", {}, {}, None)

    def get_usage(self, shares=None):
        """What each machine that runs uses of the host, and what it counts."""
        return self._call("GET", "/v1/usage", {}, {"shares": shares}, None)

    def attach_disk(self, machine, file, idempotency_key=None):
        """Gives a machine that runs another disk, or a disc."""
        return self._call("POST", "/v1/machines/{machine}/disks", {"machine": machine}, {}, {"file": file}, idempotency_key)

    def detach_disk(self, machine, disk, idempotency_key=None):
        """Takes a disk from a machine that runs."""
        return self._call("POST", "/v1/machines/{machine}/disks/detach", {"machine": machine}, {}, {"disk": disk}, idempotency_key)

    def get_disk(self, file, format=None, chain=None, parents=None):
        """What a disk is."""
        return self._call("GET", "/v1/disks/info", {}, {"file": file, "format": format, "chain": chain, "parents": parents}, None)

    def check_disk(self, file, format=None, chain=None, quick=None, parents=None):
        """Whether a disk is sound; writes nothing."""
        return self._call("GET", "/v1/disks/check", {},
                          {"file": file, "format": format, "chain": chain, "quick": quick, "parents": parents}, None)

    def create_disk(self, file, size=None, format=None, parent=None, parent_format=None, block_size=None, fixed=None, idempotency_key=None):
        """Makes a disk."""
        return self._call("POST", "/v1/disks", {}, {},
                          {"file": file, "size": size, "format": format, "parent": parent, "parent-format": parent_format, "block-size": block_size, "fixed": fixed},
                          idempotency_key)

    def convert_disk(self, source, target, from_=None, to=None, fixed=None, idempotency_key=None):
        """Copies a disk into another format."""
        return self._call("POST", "/v1/disks/convert", {}, {},
                          {"source": source, "target": target, "from": from_, "to": to, "fixed": fixed}, idempotency_key)

    def search_images(self, query, limit=None, catalog=None):
        """Images of the catalog (docs/image.md has the language)."""
        return self._call("GET", "/v1/images", {}, {"query": query, "limit": limit, "catalog": catalog}, None)

    def index_images(self, folders, catalog=None, idempotency_key=None):
        """Has the catalog know the images of these folders."""
        return self._call("POST", "/v1/images/index", {}, {}, {"folders": folders, "catalog": catalog}, idempotency_key)

    def get_image(self, file, format=None):
        """What an image says about itself."""
        return self._call("GET", "/v1/images/about", {}, {"file": file, "format": format}, None)

    def set_image(self, file, values, format=None, override=None, idempotency_key=None):
        """Changes what an image says about itself, its policy with it."""
        return self._call("PUT", "/v1/images/about", {}, {}, {"file": file, "values": values, "format": format, "override": override},
                          idempotency_key)

    def get_image_policy(self, file, format=None):
        """What may be done with an image, and which rule refuses the rest."""
        return self._call("GET", "/v1/images/policy", {}, {"file": file, "format": format}, None)

    def list_operations(self):
        """Those that are under way, and the last that ended."""
        return self._call("GET", "/v1/operations", {}, {}, None)

    def get_operation(self, operation):
        """One operation."""
        return self._call("GET", "/v1/operations/{operation}", {"operation": operation}, {}, None)

    def cancel_operation(self, operation, idempotency_key=None):
        """Ends it before it is done."""
        return self._call("DELETE", "/v1/operations/{operation}", {"operation": operation}, {}, None, idempotency_key)

    def get_version(self):
        """Of the daemon, and of the API."""
        return self._call("GET", "/v1/version", {}, {}, None)

    def open_page(self, end=None):
        """An address of the web page, at a port of this host, that is good once."""
        return self._call("POST", "/v1/page", {}, {}, {"end": end})

    def enter_page(self, ticket):
        """What a browser is let in with, for the ticket of its address."""
        return self._call("POST", "/v1/session", {}, {}, {"ticket": ticket})

    def get_metrics(self):
        """Counters of the daemon and of all machines, for Prometheus."""
        return self._call("GET", "/metrics", {}, {}, None)

    def get_document(self):
        """This document."""
        return self._call("GET", "/openapi.json", {}, {}, None)
