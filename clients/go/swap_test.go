package dwcp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const memorySwaps = 300

// load is how many goroutines forecast during how many swaps; the race detector makes everything ten times slower.
func load() (goroutines, swaps int) {
	if raceDetector {
		return 100, 10
	}
	return 1000, 50
}

// A thousand goroutines forecast without a break while the version changes fifty times, also to one that forecasts only the next row and
// back: no request fails, and each has the forecast of the version that it names, of all its horizons, with and without a context.
func TestSwapsUnderLoad(t *testing.T) {
	concurrent, swaps := load()
	document := expected(t)
	folder, versions := withNextRow(t), []string{document.Second, document.NextRow, document.First}
	var swapped atomic.Int32
	client := open(t, folder, Options{OnSwap: func(string, string) { swapped.Add(1) }})
	rows, contexts := document.Cases[0].Rows, []LinkContext{nil, document.Cases[0].Known.context()}
	right := map[string][2]Forecast{}
	for _, version := range versions {
		setCurrent(t, folder, version)
		_, err := client.Refresh()
		must(t, err)
		both := [2]Forecast{}
		for at, known := range contexts {
			both[at], err = client.PredictKnowing(context.Background(), rows, known)
			must(t, err)
		}
		right[version] = both
	}
	first, second, next := right[document.First], right[document.Second], right[document.NextRow]
	if first[0].RTTMs == second[0].RTTMs || first[0].RTTMs == next[0].RTTMs || len(first[0].Ahead) != 3 || len(next[0].Ahead) != 0 {
		t.Fatal("two versions forecast the same: nothing would be seen")
	}
	if reflect.DeepEqual(first[0], first[1]) {
		t.Fatal("a context changes nothing: nothing would be seen")
	}
	before := swapped.Load()
	stop, counts := make(chan struct{}), sync.Map{}
	var working sync.WaitGroup
	for range concurrent {
		working.Add(1)
		go func() {
			defer working.Done()
			for at, done := 0, false; !done; at = 1 - at {
				select {
				case <-stop:
					done = true // after one more
				default:
				}
				forecast, err := client.PredictKnowing(context.Background(), rows, contexts[at])
				if err != nil || !reflect.DeepEqual(forecast, right[forecast.Version][at]) {
					t.Errorf("%+v %v", forecast, err)
					return
				}
				count, _ := counts.LoadOrStore(forecast.Version, &atomic.Int64{})
				count.(*atomic.Int64).Add(1)
			}
		}()
	}
	for at := range swaps {
		setCurrent(t, folder, versions[at%3])
		if changed, err := client.Refresh(); err != nil || !changed {
			t.Errorf("swap %d: %v %v", at, changed, err)
		}
	}
	close(stop)
	working.Wait()
	if made := swapped.Load() - before; int(made) != swaps {
		t.Errorf("%d swaps", made)
	}
	total := int64(0)
	counts.Range(func(version, count any) bool { total += count.(*atomic.Int64).Load(); return true })
	t.Logf("figure: %d forecasts by %d goroutines during %d swaps, none failed", total, concurrent, swaps)
	users := func() int { client.mu.Lock(); defer client.mu.Unlock(); return client.live.users }()
	if users != 0 {
		t.Errorf("%d requests are still counted", users)
	}
}

// The memory of the process does not grow with the number of swaps: every session and every tensor is given back.
func TestMemoryOverSwaps(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector keeps memory of its own")
	}
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("there is no /proc here to read the resident memory from")
	}
	document := expected(t)
	folder := copied(t)
	client, known := open(t, folder, Options{PublicKey: publicKey(t)}), document.Cases[0].Known.context()
	var at, kB []float64
	for swap := range memorySwaps {
		goTo(t, folder, []string{document.Second, document.First}[swap%2])
		if changed, err := client.Refresh(); err != nil || !changed {
			t.Fatal(changed, err)
		}
		for range 10 {
			_, err := client.PredictKnowing(context.Background(), document.Cases[0].Rows, known)
			must(t, err)
		}
		if swap >= memorySwaps/3 { // before that, pools of allocators fill
			debug.FreeOSMemory()
			at, kB = append(at, float64(swap)), append(kB, residentKB(t))
		}
	}
	slope := slope(at, kB)
	t.Logf("figure: resident memory %.1f MB; slope over the last %d of %d swaps: %+.2f kB a swap", kB[len(kB)-1]/1024, len(at), memorySwaps, slope)
	if slope > 8 { // measured: a session that is not destroyed costs 540 kB a swap, one tensor of each request 15 kB
		t.Errorf("%.1f kB a swap", slope)
	}
}

func residentKB(t *testing.T) float64 {
	content, err := os.ReadFile("/proc/self/statm")
	must(t, err)
	pages, err := strconv.ParseFloat(strings.Fields(string(content))[1], 64)
	must(t, err)
	return pages * float64(os.Getpagesize()) / 1024
}

// slope is that of the least-squares line.
func slope(x, y []float64) float64 {
	meanX, meanY, above, below := 0.0, 0.0, 0.0, 0.0
	for at := range x {
		meanX, meanY = meanX+x[at]/float64(len(x)), meanY+y[at]/float64(len(x))
	}
	for at := range x {
		above, below = above+(x[at]-meanX)*(y[at]-meanY), below+(x[at]-meanX)*(x[at]-meanX)
	}
	return above / below
}

// Time of one forecast with a network of the published size, from rows to numbers. Printed, and not judged: machines differ five-fold.
func TestLatency(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector slows everything down")
	}
	rows := expected(t).Cases[0].Rows
	for graph, name := range map[Graph]string{Raw: "raw", Int8: "int8"} {
		client := open(t, filepath.Join(fixture(t), "full"), Options{Graph: graph})
		times := make([]time.Duration, 0, 2000)
		for range cap(times) {
			began := time.Now()
			_, err := client.Predict(context.Background(), rows)
			must(t, err)
			times = append(times, time.Since(began))
		}
		slices.Sort(times)
		t.Logf("figure: %s graph, one at a time: p50 %.2f ms, p99 %.2f ms", name, milliseconds(times[len(times)/2]), milliseconds(times[len(times)*99/100]))
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Follow changes to a new version by itself, tells a refused one once, keeps the one before, and recovers when CURRENT is put right.
func TestFollow(t *testing.T) {
	document := expected(t)
	folder := copied(t)
	swappedTo, refusals := make(chan string, 10), make(chan error, 10)
	client := open(t, folder, Options{
		PublicKey: publicKey(t),
		OnSwap:    func(_, to string) { swappedTo <- to },
		OnRefused: func(err error) { refusals <- err },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Follow(ctx, time.Millisecond) }()
	goTo(t, folder, document.Second)
	if to := received(t, swappedTo); to != document.Second || client.Version() != document.Second {
		t.Errorf("changed to %s", to)
	}
	must(t, os.Rename(filepath.Join(folder, document.First, goldenName), filepath.Join(folder, "golden")))
	goTo(t, folder, document.First)
	if err := received(t, refusals); !strings.Contains(err.Error(), "golden.json\" is missing") {
		t.Error(err)
	}
	time.Sleep(50 * time.Millisecond) // it is tried again meanwhile, and not told again
	if len(refusals) > 0 || client.Version() != document.Second {
		t.Errorf("told again, or %s is live", client.Version())
	}
	must(t, os.Rename(filepath.Join(folder, "golden"), filepath.Join(folder, document.First, goldenName)))
	if to := received(t, swappedTo); to != document.First { // it was only not whole yet
		t.Errorf("changed to %s", to)
	}
	cancel()
	if err := received(t, ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if client.Follow(context.Background(), 0) == nil {
		t.Error("an interval of 0 is accepted")
	}
}

func received[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(time.Minute):
		t.Fatal("nothing came within a minute")
	}
	return value
}

// Close waits for running requests, ends Follow, and later requests are told.
func TestClose(t *testing.T) {
	document := expected(t)
	client, err := Open(copied(t), Options{Concurrency: 1})
	must(t, err)
	followed := make(chan error, 1)
	go func() { followed <- client.Follow(context.Background(), time.Millisecond) }()
	var working sync.WaitGroup
	for range 50 {
		working.Add(1)
		go func() {
			defer working.Done()
			for {
				if _, err := client.Predict(context.Background(), document.Cases[0].Rows); errors.Is(err, ErrClosed) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	runtime.Gosched()
	must(t, client.Close())
	working.Wait()
	if err := received(t, followed); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := client.Refresh(); !errors.Is(err, ErrClosed) || client.Version() != "" || !errors.Is(client.Close(), ErrClosed) {
		t.Error("a closed client goes on")
	}
}

// A request whose context has ended is not computed, and one that waits for its turn gives up.
func TestContext(t *testing.T) {
	document := expected(t)
	client := open(t, copied(t), Options{Concurrency: 1})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client.Predict(ended, document.Cases[0].Rows); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	client.slots <- struct{}{}
	waiting, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := client.Predict(waiting, document.Cases[0].Rows); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	<-client.slots
	_, err := client.Predict(context.Background(), document.Cases[0].Rows)
	must(t, err)
}
