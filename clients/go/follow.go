package dwcp

import (
	"context"
	"errors"
	"time"
)

// mostRetryDelay is how long a version that was refused is left alone at most: it may still be being copied.
const mostRetryDelay = time.Minute

// Refresh reads CURRENT once and, where it names another version than the live one, verifies that and changes to it. It tells whether it
// did. On an error the version before stays.
//
// It is what to call when a message on dwcp.models announces a version; Follow calls it again and again.
func (c *Client) Refresh() (swapped bool, err error) {
	from, to, err := c.refresh()
	if err != nil || from == to {
		return false, err
	}
	if c.options.OnSwap != nil {
		c.options.OnSwap(from, to)
	}
	return true, nil
}

// refresh returns the version before and the one that is live now.
func (c *Client) refresh() (from, to string, err error) {
	c.refreshing.Lock()
	defer c.refreshing.Unlock()
	if from = c.Version(); from == "" {
		return from, from, ErrClosed
	}
	next, err := c.loadCurrent(from)
	if err != nil || next == nil {
		return from, from, err
	}
	c.retire(c.swap(next))
	return from, next.version, nil
}

// Follow looks at CURRENT at every interval and changes to each new version, until the context ends or the client is closed; it gives
// the reason. A version that is refused is tried again after a growing delay, and Options.OnRefused is told once for each problem.
func (c *Client) Follow(ctx context.Context, interval time.Duration) error {
	if interval <= 0 {
		return errors.New("dwcp: the interval must be over 0")
	}
	told, delay := "", interval
	for {
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		_, err := c.Refresh()
		switch {
		case errors.Is(err, ErrClosed):
			return err
		case err == nil:
			told, delay = "", interval
			continue
		case err.Error() != told && c.options.OnRefused != nil:
			c.options.OnRefused(err)
		}
		if err.Error() == told { // the same again: look less often
			delay = max(interval, min(2*delay, mostRetryDelay))
		} else {
			told, delay = err.Error(), interval
		}
	}
}
