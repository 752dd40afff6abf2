package lease

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

var throttled = &types.ProvisionedThroughputExceededException{}

func TestConfigNamesTheWrongField(t *testing.T) {
	good := Config{Table: NewTable(nil, "t"), WorkerID: "A", Stream: testStream, Failover: 10 * time.Second}
	if _, err := NewManager(good, nil); err != nil {
		t.Fatal(err)
	}
	for want, edit := range map[string]func(*Config){
		"Table is missing":                   func(c *Config) { c.Table = nil },
		"WorkerID \"\" has 0 bytes":          func(c *Config) { c.WorkerID = "" },
		"has 49 bytes; write 1 to 48":        func(c *Config) { c.WorkerID = strings.Repeat("x", 49) },
		"WorkerID \"a#b\" contains '#'":      func(c *Config) { c.WorkerID = "a#b" },
		"Stream is missing":                  func(c *Config) { c.Stream = "" },
		"Failover is 2.999s; write at least": func(c *Config) { c.Failover = 2999 * time.Millisecond },
		"none may be negative":               func(c *Config) { c.Backoff = -1 },
	} {
		c := good
		edit(&c)
		if _, err := NewManager(c, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestTheProcessKnowsItsAcquisitionsAgain(t *testing.T) {
	a, b := newAcquisitions("A"), newAcquisitions("A")
	x, y := a.next(), a.next()
	show := func(acquisition string) Lease { return Lease{Key: shard0, Acquisition: acquisition} }
	if x == y || !a.isOwn(show(x)) || b.isOwn(show(x)) || a.isOwn(show("")) {
		t.Errorf("acquisitions %s, %s", x, y)
	}
	// What another worker gives is ours once it is adopted, and no sooner; the last of each lease is enough.
	given, again := acquisitionFor("A"), acquisitionFor("A")
	if a.isOwn(show(given)) {
		t.Errorf("%s is taken for a run before it is one", given)
	}
	a.adopt(show(given))
	if !a.isOwn(show(given)) || b.isOwn(show(given)) || a.isOwn(Lease{Key: shard1, Acquisition: given}) {
		t.Errorf("%s was adopted", given)
	}
	a.adopt(show(again))
	if a.isOwn(show(given)) || !a.isOwn(show(again)) || a.isOwn(show("")) {
		t.Errorf("%s was adopted after %s", again, given)
	}
	if !(Lease{Owner: "A", Acquisition: x}).IsOurs() {
		t.Errorf("%s is not A's", x)
	}
}
