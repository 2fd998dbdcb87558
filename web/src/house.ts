import { createContext, useContext } from "react";
import type { House } from "./api/types";
import { useParam } from "./route";

export const HouseContext = createContext<House | null>(null);
export function useHouse(): House {
  const house = useContext(HouseContext);
  if (!house) throw new Error("no house");
  return house;
}
// The dictionary in use: the one in the address, else the first.
export function useDictionary(): [string | null, (name: string) => void] {
  const house = useHouse();
  const [name, set] = useParam("d", house.first ?? "");
  return [name || null, (value) => set(value, false)];
}
