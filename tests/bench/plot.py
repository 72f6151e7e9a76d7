"""Figures as SVG: one line a server, both axes logarithmic. Nothing but what is needed here."""
import html
import math

COLOURS = {"postern": "#c0392b", "dovecot": "#2c6fbb", "courier": "#8a6d1d", "cyrus": "#6a3d9a", "mailutils": "#2e8b57", "popa3d": "#555555",
           "dovecot-hp": "#74a9d8", "floor": "#aaaaaa"}
WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 40, 50
FONT = 'font-family="sans-serif" font-size="12"'


def decades(values):
    """The powers of ten that have all values between them."""
    low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def power(n, unit=""):
    """10**n as people write it."""
    value = "{:,}".format(10 ** n) if n >= 0 else ("%.*f" % (-n, 10.0 ** n))
    return value + unit


def text(x, y, what, anchor="middle", more=""):
    return '<text x="%.1f" y="%.1f" text-anchor="%s" fill="#222" %s%s>%s</text>' % (x, y, anchor, FONT, more, html.escape(what))


def grid(x0, x1, y0, y1, at_x, at_y):
    parts = []
    for n in range(x0, x1 + 1):
        x = at_x(10.0 ** n)
        parts.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/>' % (x, TOP, x, HEIGHT - BOTTOM))
        parts.append(text(x, HEIGHT - BOTTOM + 18, power(n)))
    for n in range(y0, y1 + 1):
        y = at_y(10.0 ** n)
        parts.append('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>' % (LEFT, y, WIDTH - RIGHT, y))
        parts.append(text(LEFT - 6, y + 4, power(n), "end"))
    return parts


def names_apart(ends):
    """Where the names stand beside the ends of their lines, so that none lies on another: {name: y}."""
    places, last = {}, -100.0
    for y, name in sorted(ends):
        last = max(y, last + 14)
        places[name] = last
    return places


def svg(title, x_title, y_title, series):
    """series: {server: [(x, y)]}. The whole file as a string."""
    points = [p for row in series.values() for p in row if p[1] > 0]
    (x0, x1), (y0, y1) = decades([p[0] for p in points]), decades([p[1] for p in points])

    def at_x(x):
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(x) - x0) / (x1 - x0)

    def at_y(y):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(y) - y0) / (y1 - y0)

    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">' % (WIDTH, HEIGHT, WIDTH, HEIGHT),
             '<rect width="100%" height="100%" fill="white"/>', text(LEFT, 22, title, "start", ' font-weight="bold"')]
    parts += grid(x0, x1, y0, y1, at_x, at_y)
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_title))
    parts.append(text(16, (TOP + HEIGHT - BOTTOM) / 2, y_title, more=' transform="rotate(-90 16 %d)"' % ((TOP + HEIGHT - BOTTOM) / 2)))
    ends = []
    for name, row in series.items():
        row = [p for p in sorted(row) if p[1] > 0]
        if not row:
            continue
        colour, wide = COLOURS.get(name, "#000"), 3 if name == "postern" else 1.5
        parts.append('<polyline fill="none" stroke="%s" stroke-width="%s" points="%s"/>' % (colour, wide,
            " ".join("%.1f,%.1f" % (at_x(x), at_y(y)) for x, y in row)))
        parts += ['<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>' % (at_x(x), at_y(y), colour) for x, y in row]
        ends.append((at_y(row[-1][1]), name, at_x(row[-1][0])))
    places = names_apart([(y, name) for y, name, _ in ends])
    for _, name, x in ends:
        parts.append('<text x="%.1f" y="%.1f" fill="%s" %s>%s</text>' % (x + 8, places[name] + 4, COLOURS.get(name, "#000"), FONT, html.escape(name)))
    return "\n".join(parts + ["</svg>"]) + "\n"
