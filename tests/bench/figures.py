"""What was measured: kept, printed, and compared with the run before."""
import json
import statistics


class Figures:
    """rows: (row, figure) -> server -> values, in the order in which they came."""

    def __init__(self):
        self.rows, self.kinds, self.goals, self.against, self.limits, self.words = {}, {}, {}, {}, {}, {}
        self.order = []     # (row, figure), server of each value, as they came

    def add(self, row, figure, unit, better, server, value, goal=None, against=None, limit=None):
        """
        `better`: "more" or "less". goal: how many times the best peer's figure Postern's may be at most (at least, if more is better); against:
        of which one, if not of the best. limit: the goal as a figure of Postern's own.
        """
        key = (row, figure)
        self.kinds[key] = (unit, better)
        if goal is not None:
            self.goals[key] = goal
        if against is not None:
            self.against[key] = against
        if limit is not None:
            self.limits[key] = limit
        self.rows.setdefault(key, {}).setdefault(server, []).append(value)
        self.order.append((key, server))

    def take_back(self, count):
        """All values but the first `count` that came."""
        while len(self.order) > count:
            key, server = self.order.pop()
            self.rows[key][server].pop()
            if not self.rows[key][server]:
                del self.rows[key][server]

    def say(self, row, figure, unit, better, server, words):
        """Why there is no figure."""
        self.kinds[row, figure] = (unit, better)
        self.rows.setdefault((row, figure), {})
        self.words.setdefault((row, figure), {})[server] = words

    def ratio(self, key, by=None):
        """Postern's median to that of the best peer; and the peer. `by`: of these values instead."""
        by = self.rows[key] if by is None else by
        if key in self.against:
            peers = {s: statistics.median(v) for s, v in by.items() if s == self.against[key]}
        else:
            peers = {s: statistics.median(v) for s, v in by.items() if s not in ("postern", "floor", "copy")}
        if "postern" not in by or not peers:
            return None, None
        choose = max if self.kinds[key][1] == "more" else min
        best = choose(peers, key=peers.get)
        return (statistics.median(by["postern"]) / peers[best] if peers[best] else None), best

    def verdict(self, key, ratio):
        if key in self.limits and "postern" in self.rows[key]:
            value, limit = statistics.median(self.rows[key]["postern"]), self.limits[key]
            return "%s <=%d" % ("ok" if value <= limit else "MISSED", limit)
        if key not in self.goals or ratio is None:
            return ""
        goal, more = self.goals[key], self.kinds[key][1] == "more"
        return "%s %s%.2f" % ("ok" if (ratio >= goal if more else ratio <= goal) else "MISSED", ">=" if more else "<=", goal)

    def print(self, last):
        names = ["postern", "dovecot", "dovecot-hp", "courier", "cyrus", "mailutils", "popa3d", "copy", "floor"]
        names = [n for n in names if any(n in by for by in self.rows.values())]
        table = [["", ""] + names + ["ratio", "to", "goal", "change"]]
        for key, by in self.rows.items():
            ratio, best = self.ratio(key)
            before = last.get("/".join(key))
            now = statistics.median(by["postern"]) if "postern" in by else None
            table.append([key[0], "%s, %s" % (key[1], self.kinds[key][0])] + [spread(by.get(n)) or self.words.get(key, {}).get(n, "") for n in names] +
                ["" if ratio is None else "%.2f" % ratio, best or "", self.verdict(key, ratio),
                 "%+.0f%%" % (100 * (now / before - 1)) if before and now is not None else ""])
        widths = [max(len(r[i]) for r in table) for i in range(len(table[0]))]
        for r in table:
            print("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip())

    def save(self, path, last_path, last, facts):
        path.write_text(json.dumps({"facts": facts, "figures": [
            {"row": k[0], "figure": k[1], "unit": self.kinds[k][0], "better": self.kinds[k][1], "values": by}
            for k, by in self.rows.items()]}, indent=1) + "\n")
        last.update({"/".join(k): statistics.median(by["postern"]) for k, by in self.rows.items() if "postern" in by})
        last_path.write_text(json.dumps(last, indent=1, sort_keys=True) + "\n")


def short_number(x):
    return "%.0f" % x if abs(x) >= 1000 else "%.3g" % x


def spread(values):
    if not values:
        return ""
    text = short_number(statistics.median(values))
    return text if len(values) == 1 else "%s (%s..%s)" % (text, short_number(min(values)), short_number(max(values)))
