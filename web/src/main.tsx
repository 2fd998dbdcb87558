import { lazy, StrictMode, Suspense, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { get } from "./api/client";
import type { House } from "./api/types";
import { useAsk } from "./ask";
import { HouseContext, useDictionary, useHouse } from "./house";
import { Link, Show } from "./parts/common";
import { go, usePlace } from "./route";
import { WalkPage } from "./pages/Walk";
import "./style.css";

// The walk comes at once; the other pages when somebody opens one.
const named = <T extends string>(load: () => Promise<Record<T, React.ComponentType<never>>>, name: T) =>
  lazy(() => load().then((m) => ({ default: m[name] as React.ComponentType<Record<string, unknown>> })));
const Latent = named(() => import("./pages/Latent"), "LatentPage");
const Browse = named(() => import("./pages/Browse"), "BrowsePage");
const Search = named(() => import("./pages/Search"), "SearchPage");
const Steer = named(() => import("./pages/Steer"), "SteerPage");
const Text = named(() => import("./pages/Text"), "TextPage");
const Heads = named(() => import("./pages/Inside"), "HeadsPage");
const Patch = named(() => import("./pages/Inside"), "PatchPage");
const Unit = named(() => import("./pages/Inside"), "UnitPage");
const Compare = named(() => import("./pages/Others"), "ComparePage");
const Dark = named(() => import("./pages/Dark"), "DarkPage");
const Runs = named(() => import("./pages/Others"), "RunsPage");
const Lists = named(() => import("./pages/Others"), "ListsPage");

const PAGES: Record<string, { title: string; menu?: boolean; Page: React.ComponentType<Record<string, unknown>> }> = {
  "": { title: "Walk", menu: true, Page: WalkPage },
  browse: { title: "Browse", menu: true, Page: Browse },
  search: { title: "Search", menu: true, Page: Search },
  steer: { title: "Steer", menu: true, Page: Steer },
  text: { title: "Text", menu: true, Page: Text },
  heads: { title: "Heads", menu: true, Page: Heads },
  patch: { title: "Patch", menu: true, Page: Patch },
  unit: { title: "Unit", menu: true, Page: Unit },
  compare: { title: "Compare", menu: true, Page: Compare },
  dark: { title: "Dark matter", menu: true, Page: Dark },
  lists: { title: "Lists", menu: true, Page: Lists },
  runs: { title: "Runs", menu: true, Page: Runs },
  latent: { title: "Latent", Page: Latent },
};

function App() {
  const house = useAsk<House>("house", (signal) => get("/house", {}, signal));
  return (
    <Show asked={house} wait="Loading the model">
      {(data) => (
        <HouseContext.Provider value={data}>
          <Frame />
        </HouseContext.Provider>
      )}
    </Show>
  );
}

function Frame() {
  const house = useHouse();
  const { path } = usePlace();
  const [d, setD] = useDictionary();
  const name = path[0] ?? "";
  const found = PAGES[name];
  const number = Number(path[1] ?? "0");
  useEffect(() => {
    document.title = `${found?.title ?? "Nowhere"}${name === "latent" ? ` ${path[1]}` : ""} · lensing`;
  }, [found, name, path]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key !== "/" || (event.target as HTMLElement).closest("input, textarea, select")) return;
      event.preventDefault();
      go(`/search${d ? `?d=${encodeURIComponent(d)}` : ""}`);
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [d]);
  const suffix = d && d !== house.first ? `?d=${encodeURIComponent(d)}` : "";
  return (
    <>
      <a href="#main" className="skip">To the content</a>
      <header>
        <Link to={`/${suffix}`} className="brand">lensing</Link>
        <nav aria-label="Pages">
          {Object.entries(PAGES).filter(([, p]) => p.menu).map(([key, p]) => (
            <Link key={key} to={`/${key}${suffix}`} className={key === name ? "on" : undefined}>{p.title}</Link>
          ))}
        </nav>
        <div className="tools">
          {house.dictionaries.length > 0 && (
            <label className="dictionary"><span className="sr">Dictionary</span>
              <select value={d ?? ""} onChange={(e) => setD(e.target.value)}>{house.dictionaries.map((x) => <option key={x.name}>{x.name}</option>)}</select>
            </label>
          )}
          <Theme />
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Suspense fallback={<p className="dim" role="status">Opening …</p>}>
          {!found || (name === "latent" && !Number.isInteger(number)) ? (
            <><h1>There is no such page</h1><p><Link to="/">To the walk</Link></p></>
          ) : (
            <found.Page key={name} {...(name === "latent" ? { number } : {})} />
          )}
        </Suspense>
      </main>
      <footer>
        lensing {house.version} · {house.model.name}: {house.model.n_layers} layers, d_model {house.model.d_model}, {house.model.device}, {house.model.dtype} · nothing leaves this machine
      </footer>
    </>
  );
}

function Theme() {
  const [theme, set] = useState(() => localStorage.getItem("theme") ?? "");
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    localStorage.setItem("theme", theme);
  }, [theme]);
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  return <button className="theme" onClick={() => set(dark ? "light" : "dark")}>{dark ? "Light" : "Dark"}</button>;
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
