/* Images of the catalog, searched as one types. */
import { ask, done, get, query } from "./api.js";
import { askFor, element, facts, say } from "./dom.js";

const SOON_MS = 120, ROWS = 100;
/* The rules of an image's own policy that are a value each (docs/image.md). */
const RULES = { "no-export": "true: its content is not copied out", "no-fork": "true: no children are made on it", "read-only": "true: nobody writes it",
	"not-after": "As 2027-01-31", "require-tags": "As [\"checked\"]", "minimum-patches": "As [\"openssl>=3.0.15\"]", "users": "As [\"anna\", \"ci-*\"]", "hosts": "As [\"build-*\"]",
	"rights": "As {\"fork\": [\"anna\"]}", "overridable": "As [\"no-export\"]" };

function details(about) {
	const os = about.os && [about.os.name, about.os.version].filter(Boolean).join(" ");
	return [facts([["Title", about.title], ["System", os], ["Tags", about.tags && about.tags.join(", ")], ["Expires", about.expires], ["Kernels", about.kernels && about.kernels.map((kernel) => kernel.version || kernel).join(", ")]]),
		element("details", {}, element("summary", {}, "All that it says"), element("pre", { class: "wide", tabindex: "0" }, JSON.stringify(about, null, 2)))];
}

/** What may be done with it; `why` names the rule that refuses, and who set it. */
function allowed(path, policy, again) {
	return [element("table", {}, element("caption", {}, "What its policies allow"), element("tbody", {}, Object.entries(policy).map(([action, { allowed, why }]) =>
		element("tr", {}, element("th", { scope: "row" }, action), element("td", {}, allowed ? "yes" : "no"), element("td", {}, why || ""))))),
	element("button", { type: "button", onclick: () => setRule(path).then((said) => { if (said) { say(`${said.rule}: set`); again(); } }, (error) => say(error.message, true)) }, "Set rule")];
}

async function setRule(file) {
	const said = await askFor("Set a rule of the image", [{ name: "rule", label: "Rule", kind: "select", words: Object.keys(RULES), needed: true, hint: Object.entries(RULES).map(([rule, hint]) => `${rule}: ${hint}`).join("; ") },
		{ name: "value", label: "Value", kind: "text", hint: "JSON or text; none: the rule is taken away" }], "Set");
	if (said)
		await ask("PUT", "/v1/images/about", { file, values: [`policy.${said.rule}=${said.value || ""}`] });
	return said;
}

function row(image) {
	const place = element("div", {});
	const showIn = (asked, shape) => asked.then((said) => place.replaceChildren(...shape(said)), (error) => place.replaceChildren(element("p", { class: "wrong" }, error.message)));
	const about = () => showIn(get(query("/v1/images/about", { file: image.path })), details);
	const policy = () => showIn(get(query("/v1/images/policy", { file: image.path })), (said) => allowed(image.path, said, policy));
	return element("li", { class: "card" }, element("div", { class: "node" }, element("span", { class: "path" }, image.path), image.title && element("span", {}, image.title),
		element("button", { type: "button", "aria-label": `About ${image.path}`, onclick: about }, "About"),
		element("button", { type: "button", "aria-label": `Policy of ${image.path}`, onclick: policy }, "Policy")), place);
}

async function index() {
	const said = await askFor("Index images", [{ name: "folders", label: "Folders", kind: "texts", hint: "Absolute paths on the host, one a line", needed: true }], "Index");
	if (said)
		await done(await ask("POST", "/v1/images/index", said));
	return said;
}

export function show(main) {
	const input = element("input", { type: "search", id: "query", placeholder: "os:debian pkg:\"openssl<3.0.15\" tag:web", autocomplete: "off", spellcheck: "false" });
	const count = element("p", { class: "hint", role: "status" }), list = element("ul", { class: "tree" });
	let timer = null, asking = null;
	main.append(element("div", { class: "head" }, element("h1", {}, "Images"), element("span", { class: "grow" }), element("button", { type: "button", onclick: () =>
		index().then((said) => { if (said) { say("Index: done"); search(); } }, (error) => say(error.message, true)) }, "Index folders")),
	element("div", { class: "card" }, element("label", { for: "query" }, "Search"), input, count), list);

	/* What is asked later stands before what is answered later. */
	async function search() {
		if (asking)
			asking.abort();
		asking = new AbortController();
		const mine = asking;
		try {
			const found = await get(query("/v1/images", { query: input.value.trim() || "not:expired", limit: ROWS }), mine.signal);
			if (mine.signal.aborted)
				return;
			count.textContent = `${found.count} ${found.count === 1 ? "image" : "images"}`;
			list.replaceChildren(...found.images.map(row));
		} catch (error) {
			if (mine.signal.aborted)
				return;
			count.textContent = error.message;
			list.replaceChildren();
		}
	}
	input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, SOON_MS); });
	search();
	return () => { clearTimeout(timer); if (asking) asking.abort(); };
}
