package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The plot, in its own units: two panels side by side, and a legend below.
const (
	plotWidth   = 1000
	plotTop     = 92
	panelWidth  = 410
	panelHeight = 280
	legendRow   = 22
)

// latencyColours can be told apart by those who do not see all colours.
var latencyColours = [stepLate]string{"#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9"}

// panel is a diagram whose y axis is the logarithm of milliseconds.
type panel struct {
	out      *bytes.Buffer
	left     float64
	xMost    float64
	low, top float64 // log10 of milliseconds
}

// plot draws the latencies as an SVG file: their percentiles, and those of the
// removals over time.
func (r *loadReport) plot() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b bytes.Buffer
	var kinds []latencyKind
	for kind := range stepLate { // which is not the broker's
		if r.latencies[kind].all.TotalCount() > 0 {
			kinds = append(kinds, kind)
		}
	}
	height := plotTop + panelHeight + 66 + legendRow*(len(kinds)+1)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d"
	font-family="system-ui, DejaVu Sans, sans-serif" font-size="12" fill="#333">
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="70" y="30" font-size="18" font-weight="bold">leavebroker load %s</text>
<text x="70" y="50" fill="#666">%s</text>
`, plotWidth, height, r.result.Profile, r.plotSubtitle())
	low, top := r.plotRange(kinds)
	r.plotPercentiles(&panel{out: &b, left: 70, low: low, top: top}, kinds)
	r.plotTime(&panel{out: &b, left: 70 + panelWidth + 90, low: low, top: top})
	r.plotLegend(&b, kinds)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (r *loadReport) plotSubtitle() string {
	s := &r.result
	text := fmt.Sprintf("groups: %d of %d members; %g steps a second for %.1f s", s.Groups, s.Members, s.Rate, s.Seconds)
	if s.Known > 0 || s.Pending > 0 {
		text += fmt.Sprintf("; known besides: %d, pending: %d", s.Known, s.Pending)
	}
	if s.Brokers > 0 {
		text += fmt.Sprintf("; broker processes: %d", s.Brokers)
	}
	return text
}

// plotRange is the range of the y axes: whole decades.
func (r *loadReport) plotRange(kinds []latencyKind) (low, top float64) {
	low, top = 0, 1
	for _, kind := range kinds {
		h := r.latencies[kind].all
		low = min(low, math.Floor(decades(h.Min())))
		top = max(top, math.Ceil(decades(h.Max())))
	}
	return low, top
}

// decades is log10 of a latency in milliseconds; what is below ten microseconds
// counts as that.
func decades(us int64) float64 { return math.Log10(max(float64(us), 10) / 1000) }

func (p *panel) x(v float64) float64 { return p.left + v/p.xMost*panelWidth }
func (p *panel) y(v float64) float64 {
	return plotTop + panelHeight*(1-(min(v, p.top)-p.low)/(p.top-p.low))
}

// frame draws the title, the axes and their grid; ticks are places and labels of
// the x axis.
func (p *panel) frame(title string, ticks map[float64]string) {
	fmt.Fprintf(p.out, "<text x=\"%.0f\" y=\"%d\" font-weight=\"bold\">%s</text>\n", p.left, plotTop-8, title)
	for v := p.low; v <= p.top; v++ {
		fmt.Fprintf(p.out, "<path d=\"M%.0f %.1fh%d\" stroke=\"#ddd\"/><text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
			p.left, p.y(v), panelWidth, p.left-6, p.y(v)+4, plotDecade(v))
	}
	for v, label := range ticks {
		fmt.Fprintf(p.out, "<path d=\"M%.1f %dv%d\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
			p.x(v), plotTop, panelHeight, p.x(v), plotTop+panelHeight+18, label)
	}
}

// plotDecade names a power of ten of milliseconds.
func plotDecade(v float64) string {
	if v >= 3 {
		return fmt.Sprintf("%g s", math.Pow(10, v-3))
	}
	return fmt.Sprintf("%g ms", math.Pow(10, v))
}

// line draws a line through points in the panel's own measures.
func (p *panel) line(points [][2]float64, colour, more string) {
	if len(points) == 0 {
		return
	}
	var d strings.Builder
	for i, pt := range points {
		fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], p.x(pt[0]), p.y(pt[1]))
	}
	fmt.Fprintf(p.out, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\"%s/>\n",
		d.String(), colour, more)
}

// plotPercentiles draws each distribution: the x axis is the share of those that
// are slower, logarithmic, so that the tail is seen.
func (r *loadReport) plotPercentiles(p *panel, kinds []latencyKind) {
	p.xMost = 1
	for _, kind := range kinds {
		p.xMost = max(p.xMost, min(4, math.Log10(float64(r.latencies[kind].all.TotalCount()))))
	}
	ticks := map[float64]string{0: "0 %"}
	for _, percent := range []float64{50, 90, 99, 99.9, 99.99} {
		if x := -math.Log10(1 - percent/100); x <= p.xMost+0.01 {
			ticks[x] = fmt.Sprintf("%g %%", percent)
		}
	}
	p.frame("Share that took no longer", ticks)
	const steps = 200
	for _, kind := range kinds {
		h := r.latencies[kind].all
		last := min(p.xMost, max(0.3, math.Log10(float64(h.TotalCount()))))
		var points [][2]float64
		for i := range steps + 1 {
			x := last * float64(i) / steps
			points = append(points, [2]float64{x, decades(h.ValueAtPercentile(100 * (1 - math.Pow(10, -x))))})
		}
		p.line(points, latencyColours[kind], "")
	}
}

// plotTime draws how removals came over the time.
func (r *loadReport) plotTime(p *panel) {
	kind := commitRemoval
	if r.latencies[kind].all.TotalCount() == 0 {
		kind = intentRemoval
	}
	slots := r.latencies[kind].slots
	p.xMost = max(float64(len(slots))*r.slot.Seconds(), r.result.Seconds)
	ticks := map[float64]string{}
	step := math.Pow(10, math.Floor(math.Log10(p.xMost/2)))
	for step*8 < p.xMost {
		step *= 2
	}
	for v := 0.0; v <= p.xMost; v += step {
		ticks[v] = fmt.Sprintf("%g s", math.Round(v*1000)/1000)
	}
	p.frame(latencyWords[kind]+", over time: median, and 99 % dashed", ticks)
	for _, part := range []struct {
		percentile float64
		style      string
	}{{50, ""}, {99, ` stroke-dasharray="5 4"`}} {
		p.line(slotPoints(slots, r.slot.Seconds(), part.percentile), latencyColours[kind], part.style)
	}
}

// slotPoints are the percentiles of the slots that have any.
func slotPoints(slots []*hdrhistogram.Histogram, width, percentile float64) [][2]float64 {
	var points [][2]float64
	for i, h := range slots {
		if h != nil {
			points = append(points, [2]float64{(float64(i) + 0.5) * width, decades(h.ValueAtPercentile(percentile))})
		}
	}
	return points
}

// plotLegend names the lines, with their numbers.
func (r *loadReport) plotLegend(b *bytes.Buffer, kinds []latencyKind) {
	columns := [...]struct {
		x    int
		name string
	}{{420, "count"}, {520, "p50"}, {620, "p90"}, {720, "p99"}, {820, "max"}}
	y := plotTop + panelHeight + 52
	for _, c := range columns {
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#666\">%s</text>\n", c.x, y, c.name)
	}
	for _, kind := range kinds {
		y += legendRow
		h := r.latencies[kind].all
		fmt.Fprintf(b, "<rect x=\"70\" y=\"%d\" width=\"16\" height=\"4\" fill=\"%s\"/><text x=\"96\" y=\"%d\">%s</text>\n",
			y-6, latencyColours[kind], y, latencyWords[kind])
		for i, text := range []string{
			fmt.Sprint(h.TotalCount()), plotNumber(h.ValueAtPercentile(50)), plotNumber(h.ValueAtPercentile(90)),
			plotNumber(h.ValueAtPercentile(99)), plotNumber(h.Max()),
		} {
			fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", columns[i].x, y, text)
		}
	}
}

// plotNumber is a latency with three digits or so.
func plotNumber(us int64) string {
	switch ms := milliseconds(us); {
	case ms >= 1000:
		return fmt.Sprintf("%.2f s", ms/1000)
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.1f ms", ms)
	}
}
