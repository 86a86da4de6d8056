package dwcp

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// rowsAt gives a row for each time; the throughput is the row's index.
func rowsAt(times ...float64) []NetworkSample {
	rows := make([]NetworkSample, len(times))
	for at, timeS := range times {
		rows[at] = NetworkSample{Timestamp: timeS, ThroughputMbps: Float(float64(at)), Region: "eu"}
	}
	return rows
}

// steady gives count times, a minute apart.
func steady(count int, from float64) []float64 {
	times := make([]float64, count)
	for at := range times {
		times[at] = from + 60*float64(at)
	}
	return times
}

const start = 1_795_000_000

func throughput(w *window, row int) float64 { return float64(w.telemetry[row*numericColumns]) }

// The newest 39 rows are used: 30 of the window and 9 before it, which are NaN where the run began later.
func TestWindowOfASteadyLink(t *testing.T) {
	for count, missing := range map[int]int{30: 9, 31: 8, 38: 1, 39: 0, 40: 0, 100: 0} {
		w, err := windowOf(rowsAt(steady(count, start)...), 5, WindowRows)
		if err != nil {
			t.Fatal(err)
		}
		for row := range ringRows {
			want := float64(count - ringRows + row)
			if got := throughput(w, row); row < missing != math.IsNaN(got) || row >= missing && got != want {
				t.Errorf("%d rows: row %d is %v, not %v", count, row, got, want)
			}
		}
		if last := w.timeS[WindowRows-1]; last != start+60*float64(count-1) {
			t.Errorf("%d rows: the window ends at %v", count, last)
		}
		if w.categories[0] != "eu" || w.categories[1] != "" {
			t.Errorf("categories %q", w.categories[:6])
		}
	}
}

// Fewer than 30 rows since the last gap are an error that says how many there are, and why.
func TestTooFewRows(t *testing.T) {
	gap := append(steady(50, start), steady(29, start+50*60+300)...)
	backwards := steady(40, start)
	for left, right := 0, 39; left < right; left, right = left+1, right-1 {
		backwards[left], backwards[right] = backwards[right], backwards[left]
	}
	for _, c := range []struct {
		times []float64
		want  TooFewRowsError
		words string
	}{
		{nil, TooFewRowsError{0, 30, false, 0}, "0 rows, a forecast needs 30"},
		{steady(29, start), TooFewRowsError{29, 30, false, 0}, "29 rows, a forecast needs 30"},
		{gap, TooFewRowsError{29, 30, true, 0}, "29 rows since the last gap"},
		{backwards, TooFewRowsError{1, 30, false, 39}, "39 rows were skipped, because they are no newer"},
	} {
		_, err := windowOf(rowsAt(c.times...), 5, WindowRows)
		var tooFew *TooFewRowsError
		if !errors.As(err, &tooFew) || *tooFew != c.want || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%v instead of %+v", err, c.want)
		}
	}
}

// A pause of more than gap_multiple times the median of the recent intervals starts a new run; one of exactly so much does not.
func TestGap(t *testing.T) {
	for pause, missing := range map[float64]int{300: 0, 300.5: 9} {
		times := append(steady(20, start), steady(30, start+19*60+pause)...)
		w, err := windowOf(rowsAt(times...), 5, WindowRows)
		if err != nil {
			t.Fatal(err)
		}
		if got := math.IsNaN(throughput(w, 8)); got != (missing > 0) {
			t.Errorf("a pause of %v s: history is missing: %v", pause, got)
		}
	}
}

// Rows in bursts of ten with a pause of a minute after each are one run, once two pauses have shown the rhythm; a longer pause ends it.
func TestBursts(t *testing.T) {
	timeS, times := float64(start), []float64{}
	for at := range 60 {
		if timeS++; at > 0 && at%10 == 0 {
			timeS += 60
		}
		times = append(times, timeS)
	}
	for pause, want := range map[float64]int{1: 30, 61: 30, 89: 30, 95: 1} {
		w, err := windowOf(rowsAt(append(times[:len(times):len(times)], timeS+pause)...), 5, 1)
		must(t, err)
		shown := 0
		for _, at := range w.timeS {
			if !math.IsNaN(at) {
				shown++
			}
		}
		if shown != want {
			t.Errorf("a pause of %v s: %d rows instead of %d", pause, shown, want)
		}
	}
}

// Late and duplicate rows are passed over: the window is the one without them.
func TestLateAndDuplicateRows(t *testing.T) {
	times := steady(60, start)
	clean, err := windowOf(rowsAt(times...), 5, WindowRows)
	if err != nil {
		t.Fatal(err)
	}
	rows := rowsAt(times...)
	rows = append(rows[:40:40], append(rowsAt(times[39], times[3], times[39]-1), rows[40:]...)...)
	again, err := windowOf(rows, 5, WindowRows)
	if err != nil {
		t.Fatal(err)
	}
	sameWindow(t, clean, again)
}

// A row that is no telemetry is named by its index.
func TestRowError(t *testing.T) {
	rows := rowsAt(steady(40, start)...)
	rows[17].PacketLoss = Float(2)
	_, err := windowOf(rows, 5, WindowRows)
	var wrong *RowError
	if !errors.As(err, &wrong) || wrong.Row != 17 || !strings.Contains(err.Error(), "row 17: packet_loss is 2") {
		t.Error(err)
	}
}

// A text with a NUL must not become the known value before it.
func TestNULInACategory(t *testing.T) {
	rows := rowsAt(steady(30, start)...)
	rows[29].Region = "eu\x00x"
	w, err := windowOf(rows, 5, WindowRows)
	if err != nil || w.categories[29*categoryColumns] != "eu\uFFFDx" {
		t.Errorf("%q %v", w.categories[29*categoryColumns], err)
	}
}

// Rows before the newest KeepRows change nothing: on any stream with gaps and jitter, the window is the same with and without them.
func TestKeepRowsAreEnough(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	compared := 0
	for range 2000 {
		timeS, times, burst := float64(start), []float64{}, []int{0, 7, 10, 18, 25}[random.IntN(5)]
		for range 60 + random.IntN(80) {
			timeS += 60 * math.Exp(random.NormFloat64()*[]float64{0, 0.1, 1}[random.IntN(3)])
			if random.IntN(60) == 0 || burst > 0 && len(times)%burst == 0 {
				timeS += 1000
			}
			times = append(times, timeS)
		}
		rows := rowsAt(times...)
		whole, errWhole := windowOf(rows, 3, WindowRows)
		part, errPart := windowOf(rows[max(0, len(rows)-KeepRows):], 3, WindowRows)
		if (errWhole == nil) != (errPart == nil) {
			t.Fatalf("%v and %v", errWhole, errPart)
		}
		if errWhole == nil {
			compared++
			sameWindow(t, whole, part)
		}
	}
	if compared < 200 {
		t.Errorf("only %d windows were compared", compared)
	}
}

func sameWindow(t *testing.T, a, b *window) {
	t.Helper()
	bits := func(w *window) (all []uint32) {
		for _, value := range w.telemetry {
			all = append(all, math.Float32bits(value))
		}
		return all
	}
	strip := func(w *window) *window { return &window{timeS: w.timeS, categories: w.categories} }
	if !reflect.DeepEqual(bits(a), bits(b)) || !reflect.DeepEqual(strip(a), strip(b)) {
		t.Fatal("the windows differ")
	}
}
