/* Who was forked from whom, and on what disks lie: what each has for itself and what it shares. */
import { get, listen, oneAtATime, query } from "./api.js";
import { bytes, element, fieldRow, state } from "./dom.js";
import { link, watchUsage } from "./machines-view.js";

const DEPTH = 64;

/* ---- machines ---- */

function share(usage) {
	if (!usage || usage.unique === undefined)
		return element("span", { class: "hint" }, "what is its own the host does not say");
	const all = usage.unique + usage.shared || 1;
	return [element("meter", { min: 0, max: all, value: usage.unique, "aria-label": "its own, of all that it has" }),
		element("span", {}, `${bytes(usage.unique)} its own, ${bytes(usage.shared)} shared`)];
}

function node(machine, machines, figures, depth) {
	const children = depth < DEPTH ? machines.filter((other) => other.parent === machine.name && other !== machine) : [];
	const found = figures.get(machine.name);
	return element("li", { "data-machine": machine.name },
		element("div", { class: "node" }, element("a", { href: link(machine.name) }, machine.name), state(machine.state), machine.state === "stopped" ? null : share(found && found.usage)),
		children.length > 0 && element("ul", {}, children.map((child) => node(child, machines, figures, depth + 1))));
}

function tree(machines, figures) {
	const names = new Set(machines.map((machine) => machine.name));
	const roots = machines.filter((machine) => !names.has(machine.parent) || machine.parent === machine.name);
	return roots.length ? element("ul", { class: "tree" }, roots.map((machine) => node(machine, machines, figures, 0))) : element("p", { class: "empty" }, "No machine is known.");
}

/* ---- disks ---- */

/** Of each link whether what is beneath is what it was made on. */
function identity(chain, n) {
	const beneath = chain[n + 1];
	if (!chain[n]["parent-data-id"])
		return beneath ? element("span", { class: "hint" }, "the format keeps no identity") : null;
	if (!beneath)
		return null;
	return chain[n]["parent-data-id"] === beneath["data-id"] ? state("same") : state("changed");
}

function chainList(chain) {
	return element("ol", { class: "tree" }, chain.map((disk, n) => element("li", {},
		element("div", { class: "node" }, element("span", { class: "path" }, disk.file), element("span", { class: "hint" }, `${disk.format}${disk.type ? `, ${disk.type}` : ""}`)),
		element("div", { class: "node" },
			element("span", {}, `${bytes(disk.allocated === undefined ? disk["file-size"] : disk.allocated)} ${n ? "shared by what lies on it" : "its own"}, of ${bytes(disk.size)}`), identity(chain, n)),
		disk["data-id"] && element("div", { class: "hint" }, `content ${disk["data-id"]}`))));
}

async function disk(file, format) {
	const place = element("section", { class: "card" }, element("h2", { class: "path" }, file), element("p", { class: "hint" }, "asking …"));
	get(query("/v1/disks/info", Object.assign({ file, chain: true }, format ? { format } : {}))).then(
		(chain) => place.replaceChildren(element("h2", { class: "path" }, file), chainList(Array.isArray(chain) ? chain : [chain])),
		(error) => place.replaceChildren(element("h2", { class: "path" }, file), state("changed"), element("p", { class: "wrong" }, error.message)));
	return place;
}

/** Of running machines, and of those that are described: FILE[,format=FORMAT]... */
function disksOf(machines) {
	const found = new Map();
	for (const machine of machines) {
		for (const one of machine.disks || [])
			found.set(one.file, one.format);
		for (const text of !machine.disks && machine.specification && machine.specification.disks || [])
			found.set(text.split(",")[0], (/,format=([a-z0-9]+)/.exec(text) || [])[1]);
		if (!machine.disks && machine.specification && machine.specification.image)
			found.set(machine.specification.image.split(",")[0], undefined);
	}
	return found;
}

export function show(main) {
	const trees = element("section", { class: "card" }), disks = element("div", {});
	const other = fieldRow({ name: "file", label: "Another disk", kind: "text", needed: true, hint: "An absolute path on the host" });
	const look = element("form", { class: "card", onsubmit: async (event) => {
		event.preventDefault();
		disks.prepend(await disk(other.input.value));
	} }, other.whole, element("button", { type: "submit" }, "Show its chain"));
	let machines = [], figures = new Map(), shown = "";
	main.append(element("div", { class: "head" }, element("h1", {}, "Lineage")), element("h2", {}, "Forks"), trees, element("h2", {}, "Disks"), look, disks);

	const draw = () => trees.replaceChildren(tree(machines, figures));
	const refresh = oneAtATime(async () => {
		machines = await get("/v1/machines");
		draw();
		const found = disksOf(machines), text = JSON.stringify([...found]);
		if (text === shown)
			return;
		shown = text;
		disks.replaceChildren(...found.size ? await Promise.all([...found].map(([file, format]) => disk(file, format))) : [element("p", { class: "empty" }, "No machine has a disk.")]);
	});
	refresh().catch(() => {});
	const unlisten = listen((event) => event.kind === "operation" || refresh().catch(() => {}));
	const unwatch = watchUsage((found) => { figures = found; draw(); }, true);
	return () => { unlisten(); unwatch(); };
}
