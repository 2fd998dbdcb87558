// All state that can be shared lives in the address: a path and a query.
import { useCallback, useEffect, useState } from "react";
import type { MouseEvent } from "react";

export interface Place { path: string[]; query: URLSearchParams }

function here(): Place {
  return {
    path: window.location.pathname.split("/").filter(Boolean).map(decodeURIComponent),
    query: new URLSearchParams(window.location.search),
  };
}

const heard = new Set<() => void>();
const tell = () => heard.forEach((listener) => listener());
window.addEventListener("popstate", tell);

export function go(to: string, replace = false) {
  if (to === window.location.pathname + window.location.search) return;
  window.history[replace ? "replaceState" : "pushState"](null, "", to);
  tell();
  if (!replace) window.scrollTo(0, 0);
}

export function usePlace(): Place {
  const [place, set] = useState(here);
  useEffect(() => {
    const listener = () => set(here());
    heard.add(listener);
    return () => void heard.delete(listener);
  }, []);
  return place;
}

// A value in the address; the fallback is not written there.
export function useParam(name: string, fallback: string): [string, (value: string, replace?: boolean) => void] {
  const place = usePlace();
  const set = useCallback(
    (value: string, replace = true) => {
      const query = new URLSearchParams(window.location.search);
      if (value === fallback) query.delete(name);
      else query.set(name, value);
      const text = query.toString();
      go(window.location.pathname + (text ? `?${text}` : ""), replace);
    },
    [name, fallback],
  );
  return [place.query.get(name) ?? fallback, set];
}

export function useNumber(name: string, fallback: number): [number, (value: number) => void] {
  const [text, set] = useParam(name, String(fallback));
  const value = Number(text);
  return [Number.isFinite(value) ? value : fallback, (v: number) => set(String(v))];
}

// A link is an <a> with a real address; a plain click stays in the page.
export function follow(event: MouseEvent<HTMLAnchorElement>) {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(event.currentTarget.getAttribute("href") ?? "/");
}

export const latentHref = (latent: number, dictionary?: string | null) =>
  `/latent/${latent}${dictionary ? `?d=${encodeURIComponent(dictionary)}` : ""}`;
