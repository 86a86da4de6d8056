package dwcp

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
)

// Graph is which of a version's graphs is used.
type Graph int

const (
	// Raw computes in float32, as the daemon does.
	Raw Graph = iota
	// Int8 is quantised: smaller and faster, and within hundredths of a standard deviation of Raw.
	Int8
)

// kind is the graph's name in a version's metadata.
func (g Graph) kind() string {
	if g == Int8 {
		return "int8"
	}
	return "raw"
}

// Options of a client. The zero value uses the raw graph and accepts unsigned versions.
type Options struct {
	// PublicKey must have signed every version that is used: see ReadPublicKey. Without one, a signature is not looked at.
	PublicKey ed25519.PublicKey
	// Remember is a file of the program's own, where nobody else may write. It keeps the newest version that was ever used, so that an older
	// signed one that somebody puts back is refused after a restart too. Without it that is only known as long as the client lives.
	// Only with PublicKey; made if it is not there; one for each models folder.
	Remember string
	// Graph is Raw or Int8.
	Graph Graph
	// Library is the path of ONNX Runtime's shared library; without it, ONNXRUNTIME_LIBRARY in the environment, then the loader's own search.
	Library string
	// Concurrency is how many forecasts are computed at once, by default one for each processor; others wait.
	Concurrency int
	// OnSwap is called by Follow and Refresh when another version has become the one that forecasts come from.
	OnSwap func(from, to string)
	// OnRefused is called by Follow when a version, or what CURRENT says, cannot be used; the version before stays. Once for each problem.
	OnRefused func(err error)
}

// Client forecasts with the live version of a models folder. All its methods may be called from many goroutines at once.
type Client struct {
	folder  string
	options Options
	slots   chan struct{}

	refreshing sync.Mutex // held while a version is verified and while the client closes; requests never wait for it
	seen       order      // the newest version that was ever used; guarded by refreshing

	mu     sync.Mutex
	live   *model // nil once closed
	loaded sync.WaitGroup
}

// model is a loaded version and how many requests are using it; guarded by Client.mu.
type model struct {
	version     string
	gapMultiple float64
	measured    [targets]bool
	horizons    horizons
	session     *session
	users       int
	retired     bool
}

// Open reads CURRENT in a models folder, verifies the version that it names (signature where a key is given, manifest, hashes), runs its
// golden vectors, and only then returns a client. Where a version is at fault the error is a *VersionError.
func Open(folder string, options Options) (*Client, error) {
	if options.PublicKey != nil && len(options.PublicKey) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("dwcp: the public key has %d bytes instead of %d", len(options.PublicKey), ed25519.PublicKeySize)
	}
	if options.Graph != Raw && options.Graph != Int8 {
		return nil, fmt.Errorf("dwcp: there is no graph %d: Raw or Int8", options.Graph)
	}
	if options.Remember != "" && options.PublicKey == nil {
		return nil, errors.New("dwcp: Options.Remember is given without Options.PublicKey: what is not signed has no order")
	}
	seen, err := remembered(options.Remember)
	if err != nil {
		return nil, err
	}
	if err := startRuntime(options.Library); err != nil {
		return nil, err
	}
	if options.Concurrency <= 0 {
		options.Concurrency = runtime.GOMAXPROCS(0)
	}
	c := &Client{folder: folder, options: options, slots: make(chan struct{}, options.Concurrency), seen: seen}
	live, err := c.loadCurrent("")
	if err != nil {
		return nil, err
	}
	c.live = live
	return c, nil
}

// loadCurrent verifies and loads the version that CURRENT names; nil if that is the one given. The folder is opened anew each time:
// it may be a mount, or a link that a deployment has moved.
func (c *Client) loadCurrent(unlessVersion string) (*model, error) {
	root, err := os.OpenRoot(c.folder)
	if err != nil {
		return nil, fmt.Errorf("dwcp: the models folder cannot be opened: %w", err)
	}
	defer root.Close()
	now, err := live(root, c.options.PublicKey, c.seen)
	if refusal := (*VersionError)(nil); errors.As(err, &refusal) {
		return nil, err
	} else if err != nil {
		return nil, &VersionError{Folder: c.folder, Problems: []string{err.Error()}}
	}
	if now.Version == unlessVersion {
		return nil, c.used(now)
	}
	v, err := openVersion(root, now.Version, c.options.PublicKey, c.options.Graph)
	if err != nil {
		return nil, err
	}
	next, err := c.load(v)
	if err == nil {
		if err = c.used(now); err != nil {
			next.session.destroy()
			c.loaded.Done()
			return nil, err
		}
	}
	return next, err
}

// used remembers a version that was accepted: nothing older is from now on.
func (c *Client) used(now order) error {
	if c.options.PublicKey == nil || !c.seen.before(now) {
		return nil
	}
	if err := remember(c.options.Remember, now); err != nil {
		return err
	}
	c.seen = now
	return nil
}

// load proves a version's graph: its name, and every golden vector.
func (c *Client) load(v *version) (*model, error) {
	samples, err := readGolden(v, c.options.Graph)
	if err != nil {
		return nil, v.refused(err.Error())
	}
	loaded, err := newSession(v.graph, v.declared, len(v.horizons.rows))
	if err != nil {
		return nil, v.refused(err.Error())
	}
	stated, err := loaded.property("version")
	if err == nil && stated != v.name {
		err = fmt.Errorf("the graph says that it is of version %.40q", stated)
	}
	if err == nil {
		err = samples.check(loaded)
	}
	if err != nil {
		loaded.destroy()
		return nil, v.refused(err.Error())
	}
	c.loaded.Add(1)
	return &model{version: v.name, gapMultiple: v.gapMultiple, measured: v.measured, horizons: v.horizons, session: loaded}, nil
}

// Version is the one that forecasts come from now; empty once the client is closed.
func (c *Client) Version() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == nil {
		return ""
	}
	return c.live.version
}

// Horizons are the rows ahead that the live version forecasts, ascending from 1. They are nil if it forecasts only the next row, and once
// the client is closed.
func (c *Client) Horizons() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == nil {
		return nil
	}
	return slices.Clone(c.live.horizons.rows)
}

// Predict forecasts what follows the last of the given rows, which are of one link, oldest first. At least 30 are needed since the last
// gap; the newest 39 are used. A row that is not newer than one before it is passed over.
//
// Errors: *TooFewRowsError, *RowError, ErrClosed, and the context's own.
func (c *Client) Predict(ctx context.Context, rows []NetworkSample) (Forecast, error) {
	return c.PredictKnowing(ctx, rows, nil)
}

// PredictKnowing forecasts as Predict does, with what is known of the link beyond the rows; nil: nothing. A version that forecasts only the
// next row does not use it.
//
// Errors: those of Predict, and *LinkContextError if it was made for other horizons than those of the live version, which may have changed.
func (c *Client) PredictKnowing(ctx context.Context, rows []NetworkSample, known LinkContext) (Forecast, error) {
	if err := ctx.Err(); err != nil {
		return Forecast{}, err
	}
	m := c.acquire()
	if m == nil {
		return Forecast{}, ErrClosed
	}
	defer c.release(m)
	values, err := known.flat(m.version, len(m.horizons.rows))
	if err != nil {
		return Forecast{}, err
	}
	need := WindowRows
	if len(m.horizons.rows) > 0 {
		need = ShortRows
	}
	w, err := windowOf(rows, m.gapMultiple, need)
	if err != nil {
		return Forecast{}, err
	}
	// A run blocks an operating system thread: without a bound, a thousand requests would be a thousand threads.
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return Forecast{}, ctx.Err()
	}
	found, err := m.session.run(w, values)
	<-c.slots
	if err != nil {
		return Forecast{}, fmt.Errorf("dwcp: version %s: %w", m.version, err)
	}
	made, err := forecastOf([targets]float32(found.nextRow), m.measured)
	if err == nil {
		made.Ahead, err = aheadOf(found.ahead, m.horizons.rows, m.measured)
	}
	if err != nil {
		return Forecast{}, fmt.Errorf("dwcp: version %s %w", m.version, err)
	}
	made.Version, made.Coverage = m.version, m.horizons.coverage
	return made, nil
}

// Close ends the client: later requests get ErrClosed. It returns when the last running one is done and its model destroyed.
func (c *Client) Close() error {
	c.refreshing.Lock() // a version that is being verified is waited for
	defer c.refreshing.Unlock()
	last := c.swap(nil)
	if last == nil {
		return ErrClosed
	}
	c.retire(last)
	c.loaded.Wait()
	return nil
}

func (c *Client) acquire() *model {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live != nil {
		c.live.users++
	}
	return c.live
}

func (c *Client) release(m *model) {
	c.mu.Lock()
	m.users--
	last := m.retired && m.users == 0
	c.mu.Unlock()
	if last {
		c.destroy(m)
	}
}

// retire destroys a model that is live no more, now or when its last request is done.
func (c *Client) retire(m *model) {
	c.mu.Lock()
	m.retired = true
	unused := m.users == 0
	c.mu.Unlock()
	if unused {
		c.destroy(m)
	}
}

func (c *Client) destroy(m *model) {
	m.session.destroy()
	c.loaded.Done()
}

// swap makes a verified model the live one, and returns the one before, which is to be retired. Requests that run go on with that.
func (c *Client) swap(next *model) *model {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.live
	c.live = next
	return before
}

// Verify checks the version that a models folder's CURRENT names, as Open does, without keeping it; it returns the version's name.
func Verify(folder string, options Options) (version string, err error) {
	client, err := Open(folder, options)
	if err != nil {
		return "", err
	}
	version = client.Version()
	return version, client.Close()
}
