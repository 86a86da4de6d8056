package dwcp

import (
	"math"
	"slices"
	"strings"
)

const (
	// WindowRows is how many rows of one link, without a gap, a version that forecasts only the next row needs.
	WindowRows = 30
	// ShortRows is how many a version of several horizons needs: it has learnt from runs that have just begun.
	ShortRows = 3
	// KeepRows is how many rows of a link are worth keeping: more of them change no forecast.
	KeepRows = 2*ringRows + intervals + 1

	historyRows     = 9 // rows before the window that rolling statistics reach back to
	ringRows        = WindowRows + historyRows
	intervals       = 9   // recent intervals whose median is the link's sampling interval
	pauses          = 2   // pauses that make a rhythm (features/timeline.py)
	rhythm          = 1.5 // by how much a further one may be longer or shorter
	numericColumns  = 11
	categoryColumns = 6
	targets         = 4
)

var (
	targetNames   = []string{"throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms"}
	categoryNames = []string{"region", "az", "link_type", "dwcp_mode", "network_tier", "transport_type"}
)

// window is what the graph takes: time_s (30), telemetry (39, 11) and categories (30, 6), row after row. Telemetry is NaN before the run's
// start and where not measured, a category "" where missing. Each is memory of its own: C is handed a pointer to it, and may not be handed
// one to memory that holds Go pointers, as texts do. Of a row before the run's start the time is NaN as well.
type window struct {
	timeS      []float64
	telemetry  []float32
	categories []string
}

func newWindow() *window {
	return &window{
		timeS:      make([]float64, WindowRows),
		telemetry:  make([]float32, ringRows*numericColumns),
		categories: make([]string, WindowRows*categoryColumns),
	}
}

// windowOf takes the newest rows of a link's newest run. Rows that are not newer than all before them are passed over, and a pause starts
// a new run, unless it is the link's rhythm: as the daemon's features do it (features/kernels.py). need is how many rows the run must have.
func windowOf(samples []NetworkSample, gapMultiple float64, need int) (*window, error) {
	rows := make([]row, 0, len(samples))
	recent := recentIntervals{}
	run := 0 // first row of the newest run
	for at := range samples {
		next, problem := samples[at].row()
		if problem != "" {
			return nil, &RowError{Row: at, Problem: problem}
		}
		if len(rows) > 0 {
			intervalS := next.timeS - rows[len(rows)-1].timeS
			if intervalS <= 0 {
				continue
			}
			if recent.isGap(intervalS, gapMultiple) {
				run = len(rows)
			}
			recent.add(intervalS)
		}
		rows = append(rows, next)
	}
	if length := len(rows) - run; length < need {
		return nil, &TooFewRowsError{Rows: length, Need: need, AfterGap: run > 0, Skipped: len(samples) - len(rows)}
	}
	return filled(rows[max(run, len(rows)-ringRows):]), nil
}

// filled puts up to 39 rows of one run into a window.
func filled(rows []row) *window {
	w := newWindow()
	missing := ringRows - len(rows)
	for at := range missing * numericColumns {
		w.telemetry[at] = float32(math.NaN())
	}
	for at, r := range rows {
		copy(w.telemetry[(missing+at)*numericColumns:], r.numeric[:])
	}
	shown := rows[max(0, len(rows)-WindowRows):]
	before := WindowRows - len(shown)
	for at := range before {
		w.timeS[at] = math.NaN()
	}
	for at, r := range shown {
		at += before
		w.timeS[at] = r.timeS
		for category, value := range r.categories {
			// A C string ends at its first NUL: what follows must not be lost, or another value would become a known one.
			w.categories[at*categoryColumns+category] = strings.ReplaceAll(value, "\x00", "\uFFFD")
		}
	}
	return w
}

// recentIntervals are the last intervals between rows of a link, and its last pauses, in float32 as the daemon keeps them.
type recentIntervals struct {
	seconds   [intervals]float32
	known     int
	head      int
	pauses    [pauses]float32 // newest first, 0 for none
	pauseAges [pauses]int     // rows since then
}

func (r *recentIntervals) add(intervalS float64) {
	r.seconds[r.head] = float32(intervalS)
	r.head = (r.head + 1) % intervals
	r.known = min(r.known+1, intervals)
}

// isGap tells whether a row begins a new run, and notes its pause: see features/kernels.py.
func (r *recentIntervals) isGap(intervalS, gapMultiple float64) bool {
	for each := range r.pauseAges {
		r.pauseAges[each]++
	}
	if !r.isPause(intervalS, gapMultiple) {
		return false
	}
	usual := true
	for each, pause := range r.pauses {
		pauseS := float64(pause)
		usual = usual && r.pauseAges[each] <= ringRows && intervalS <= rhythm*pauseS && pauseS <= rhythm*intervalS
	}
	copy(r.pauses[1:], r.pauses[:])
	copy(r.pauseAges[1:], r.pauseAges[:])
	r.pauses[0], r.pauseAges[0] = float32(intervalS), 0
	return !usual
}

// isPause tells whether an interval is longer than gapMultiple times the median of the recent ones.
func (r *recentIntervals) isPause(intervalS, gapMultiple float64) bool {
	if r.known == 0 {
		return false
	}
	sorted := r.seconds
	known := sorted[:r.known]
	slices.Sort(known)
	middle := r.known / 2
	median := float64(known[middle])
	if r.known%2 == 0 {
		median = 0.5 * (float64(known[middle-1]) + median)
	}
	return intervalS > gapMultiple*median
}
