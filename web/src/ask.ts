import { useEffect, useRef, useState } from "react";

export interface Asked<T> { data: T | null; error: string | null; busy: boolean }

// Ask again whenever `key` changes (null: do not ask); what was there stays until the answer comes.
export function useAsk<T>(key: string | null, make: (signal: AbortSignal) => Promise<T>, wait = 0): Asked<T> {
  const [state, set] = useState<Asked<T>>({ data: null, error: null, busy: key !== null });
  const latest = useRef(make);
  latest.current = make;
  useEffect(() => {
    if (key === null) {
      set({ data: null, error: null, busy: false });
      return;
    }
    const stop = new AbortController();
    set((old) => ({ ...old, busy: true }));
    const timer = window.setTimeout(() => {
      latest.current(stop.signal).then(
        (data) => !stop.signal.aborted && set({ data, error: null, busy: false }),
        (error: Error) => {
          if (!stop.signal.aborted) set((old) => ({ data: old.data, error: error.message, busy: false }));
        },
      );
    }, wait);
    return () => {
      stop.abort();
      window.clearTimeout(timer);
    };
  }, [key, wait]);
  return state;
}

// The last value, once it has stood still for a while.
export function useCalm<T>(value: T, wait: number): T {
  const [calm, set] = useState(value);
  useEffect(() => {
    const timer = window.setTimeout(() => set(value), wait);
    return () => window.clearTimeout(timer);
  }, [value, wait]);
  return calm;
}
