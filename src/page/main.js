/* Who is let in, and which view there is: #/VIEW or #/VIEW/NAME. */
import { enter, enterWith, followEvents, get } from "./api.js";
import { askFor, element, say } from "./dom.js";

const views = {
	machines: () => import("./machines-view.js"), machine: () => import("./machine-view.js"), create: () => import("./create-view.js"),
	lineage: () => import("./lineage-view.js"), memory: () => import("./memory-view.js"), bus: () => import("./bus-view.js"),
	images: () => import("./images-view.js"), work: () => import("./work-view.js"),
};
const main = document.getElementById("main");
const TICKET = /[#&]ticket=([0-9a-f]+)/;
let leave = null, turn = 0, follows = false, isIn = false;

function mark(name) {
	for (const link of document.querySelectorAll("nav a"))
		if (link.hash === `#/${name}` || name === "machine" && link.hash === "#/machines")
			link.setAttribute("aria-current", "page");
		else
			link.removeAttribute("aria-current");
}

/** A view's show(main, rest) gives back what ends it. */
async function show() {
	const [, name = "", ...rest] = location.hash.split("/");
	const load = views[name];
	const mine = ++turn;
	if (!load) {
		location.replace("#/machines");
		return;
	}
	if (leave)
		leave();
	leave = null;
	mark(name);
	try {
		const { show: begin } = await load();
		if (mine !== turn)
			return;
		main.replaceChildren();
		leave = begin(main, ...rest.map(decodeURIComponent));
		document.title = `${rest[0] ? decodeURIComponent(rest[0]) : name[0].toUpperCase() + name.slice(1)} – Umbra`;
	} catch (error) {
		main.replaceChildren(element("p", { class: "empty wrong" }, error.message));
	}
}

function linked(yes) {
	const link = document.getElementById("link");
	const text = yes ? "live" : "not connected";
	link.classList.toggle("lost", !yes);
	if (link.textContent !== text)
		link.textContent = text;
}

function askForToken() {
	isIn = follows = false;
	if (leave)
		leave();
	leave = null;
	turn++;
	main.replaceChildren(element("div", { class: "card" }, element("h1", {}, "You are not let in"),
		element("p", {}, "Say ", element("code", {}, "umbra page"), " in a terminal, and open the address that it says. It is good once."),
		element("p", {}, "At a port of umbrad --listen, its token lets you in."),
		element("button", { class: "main", onclick: async () => {
			const said = await askFor("Token", [{ name: "token", label: "Token", needed: true }], "Enter");
			if (said) {
				enterWith(said.token);
				begin();
			}
		} }, "Enter a token")));
}

async function begin() {
	const ticket = TICKET.exec(location.hash);
	try {
		if (ticket) {
			history.replaceState(null, "", "/#/machines");
			await enter(ticket[1]);
		}
		await get("/v1/version");
	} catch (error) {
		linked(false);
		if (error.status && error.status !== 401)
			say(error.message, true);
		askForToken();
		return;
	}
	isIn = true;
	show();
	if (!follows)
		followEvents(linked, askForToken);
	follows = true;
}

/* An address with a ticket may come to a page that is there already. */
window.addEventListener("hashchange", () => {
	if (TICKET.test(location.hash))
		begin();
	else if (isIn)
		show();
});

/* One key each, where nothing is being typed. */
const keys = { m: "machines", l: "lineage", y: "memory", b: "bus", i: "images", w: "work", c: "create" };
document.addEventListener("keydown", (event) => {
	const typing = event.target.closest("input, textarea, select, dialog, .terminal");
	if (typing || event.ctrlKey || event.altKey || event.metaKey)
		return;
	if (keys[event.key])
		location.hash = `#/${keys[event.key]}`;
	else if (event.key === "/" && document.querySelector("input[type=search]")) {
		event.preventDefault();
		document.querySelector("input[type=search]").focus();
	}
});
begin();
