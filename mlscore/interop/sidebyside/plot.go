package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"leavebroker/mlscore/mlstest/biggroup"
)

// The plot, in its own units: four panels, two beside each other, and a legend
// above them.
const (
	plotWidth    = 940
	plotHeight   = 760
	firstPanelX  = 80
	firstPanelY  = 120
	panelWidth   = 360
	panelHeight  = 240
	panelStrideX = 470
	panelStrideY = 325
)

// engineColours can be told apart by those who do not see all colours.
var engineColours = map[string]string{"leavebroker": "#0072b2", "mls-rs": "#d55e00", "openmls": "#009e73"}

// panel is a diagram of one measure over the members, both logarithmic.
type panel struct {
	title string
	of    func(row) float64
	label func(float64) string
}

var panels = []panel{
	{"a commit: parsed, verified, checked, applied", func(r row) float64 { return r.commit }, duration},
	{"a commit, as a multiple of its signature verifications", func(r row) float64 { return r.commit / r.floor }, func(v float64) string { return fmt.Sprintf("%g", v) }},
	{"ingestion of a GroupInfo with its ratchet tree", func(r row) float64 { return r.load }, duration},
	{"heap of a loaded group", func(r row) float64 { return float64(r.heap) }, bytesLabel},
}

// plot draws the rows as an SVG file.
func plot(shape biggroup.Shape, machine string, rows []row) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d"
	font-family="system-ui, DejaVu Sans, sans-serif" font-size="12" fill="#333">
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="%d" y="30" font-size="18" font-weight="bold">Trackers side by side</text>
<text x="%d" y="50" fill="#666">the same messages, medians, %s trees, over the number of members; %s</text>
`, plotWidth, plotHeight, firstPanelX, firstPanelX, shape, escape(machine))
	names := enginesOf(rows)
	for i, name := range names {
		x := firstPanelX + 150*i
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"68\" width=\"16\" height=\"4\" fill=\"%s\"/><text x=\"%d\" y=\"74\">%s</text>\n", x, engineColours[name], x+24, name)
	}
	for i, p := range panels {
		p.draw(&b, firstPanelX+panelStrideX*float64(i%2), firstPanelY+panelStrideY*float64(i/2), names, rows)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func enginesOf(rows []row) []string {
	var names []string
	for _, r := range rows {
		if !slices.Contains(names, r.name) {
			names = append(names, r.name)
		}
	}
	return names
}

// draw draws the panel with its upper left corner at (left, top).
func (p panel) draw(b *strings.Builder, left, top float64, names []string, rows []row) {
	x := scale(rows, func(r row) float64 { return float64(r.members) }, left, left+panelWidth)
	y := scale(rows, p.of, top+panelHeight, top)
	fmt.Fprintf(b, "<text x=\"%.0f\" y=\"%.0f\" font-weight=\"bold\">%s</text>\n", left, top-10, p.title)
	for v := y.low; v <= y.high; v *= 10 {
		fmt.Fprintf(b, "<path d=\"M%.0f %.1fh%d\" stroke=\"#ddd\"/><text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
			left, y.at(v), panelWidth, left-6, y.at(v)+4, p.label(v))
	}
	for v := x.low; v <= x.high; v *= 10 {
		fmt.Fprintf(b, "<path d=\"M%.1f %.0fv%d\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%g</text>\n",
			x.at(v), top, panelHeight, x.at(v), top+panelHeight+18, v)
	}
	for _, name := range names {
		var points []string
		for _, r := range rows {
			if r.name == name {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x.at(float64(r.members)), y.at(p.of(r))))
			}
		}
		fmt.Fprintf(b, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\"/>\n", strings.Join(points, " "), engineColours[name])
		for _, point := range points {
			cx, cy, _ := strings.Cut(point, ",")
			fmt.Fprintf(b, "<circle cx=\"%s\" cy=\"%s\" r=\"3\" fill=\"%s\"/>\n", cx, cy, engineColours[name])
		}
	}
}

// axis is a logarithmic axis of whole decades between two places.
type axis struct{ low, high, from, to float64 }

// scale is the axis of a measure, between two places.
func scale(rows []row, of func(row) float64, from, to float64) axis {
	least, most := math.Inf(1), 0.0
	for _, r := range rows {
		least, most = min(least, of(r)), max(most, of(r))
	}
	low := math.Pow(10, math.Floor(math.Log10(least)))
	return axis{low, max(math.Pow(10, math.Ceil(math.Log10(most))), low*10), from, to}
}

func (a axis) at(v float64) float64 {
	return a.from + (a.to-a.from)*math.Log10(v/a.low)/math.Log10(a.high/a.low)
}

func bytesLabel(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%g MB", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%g kB", v/1e3)
	}
	return fmt.Sprintf("%g B", v)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
