package metrics

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What the input and the output count is what is described, kind and labels included.
func TestEveryMetricIsDescribed(t *testing.T) {
	made := regexp.MustCompile(`New(Counter|Gauge)\("([a-z_]+)"(?:, (label))?(?:, "([a-z]+)")?\)`)
	var names []string
	for _, source := range []string{"../input/metrics.go", "../output/metrics.go"} {
		for _, m := range made.FindAllStringSubmatch(read(t, source), -1) {
			var labels []string
			if m[3] != "" {
				labels = append(labels, "kinesis_stream")
			}
			if m[4] != "" {
				labels = append(labels, m[4])
			}
			names = append(names, m[2])
			i := slices.IndexFunc(Metrics(), func(k Metric) bool { return k.Name == m[2] })
			if i < 0 {
				t.Errorf("%s: nothing is said of it", m[2])
				continue
			}
			if k := Metrics()[i]; k.Kind != strings.ToLower(m[1]) || !slices.Equal(k.Labels, labels) || k.Help == "" {
				t.Errorf("%s: described as %+v, and is a %s with %v", m[2], k, m[1], labels)
			}
		}
	}
	for _, k := range Metrics() {
		if !slices.Contains(names, k.Name) {
			t.Errorf("%s is described, and nobody counts it", k.Name)
		}
		if !strings.Contains(read(t, "../docs/operating.md"), "`"+k.Name) {
			t.Errorf("%s is not on the page about operating", k.Name)
		}
	}
	if len(names) < 20 {
		t.Errorf("only %v were found", names)
	}
	e := newTestExporter(t, "")
	e.NewGaugeCtor("kinesis_leases_held", "kinesis_stream")("orders").Set(1)
	wantLines(t, scrape(e), "# HELP kinesis_leases_held Shards that this process reads.")
}

// The alerts that are shipped are ones that can fire: every metric and label in them exists.
func TestTheAlertsAreAboutWhatThereIs(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "../docs/alerts.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil || len(file.Groups) != 1 || len(file.Groups[0].Rules) < 5 {
		t.Fatalf("%v: %+v", err, file)
	}
	// The expressions keep to a small part of PromQL, which can be taken to pieces here.
	selector := `(kinesis_\w+|pulsar_\w+)(?:\{(\w+)(?:=|!=|=~|!~)"[^"]*"\})?`
	expression := regexp.MustCompile(`^(?:absent\(` + selector + `\)|(?:max|sum)(?: by \(([\w, ]+)\) )?\((increase\()?` + selector + `(\[\d+m\]\))?\) > \d+)$`)
	placeholder := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, r := range file.Groups[0].Rules {
		m := expression.FindStringSubmatch(strings.TrimSpace(r.Expr))
		if m == nil {
			t.Errorf("%s: %s is none of the forms that are understood here", r.Alert, r.Expr)
			continue
		}
		name, matched, by := m[1]+m[5], m[2]+m[6], strings.FieldsFunc(m[3], func(c rune) bool { return c == ',' || c == ' ' })
		i := slices.IndexFunc(Metrics(), func(k Metric) bool { return k.Name == name })
		if i < 0 {
			t.Errorf("%s: there is no metric %s", r.Alert, name)
			continue
		}
		k := Metrics()[i]
		for _, label := range append(slices.Clone(by), matched) {
			if label != "" && !slices.Contains(k.Labels, label) {
				t.Errorf("%s: %s has no label %s", r.Alert, name, label)
			}
		}
		if increases := m[4] != ""; increases != (k.Kind == "counter") || increases != (m[7] != "") {
			t.Errorf("%s: %s is a %s: %s", r.Alert, name, k.Kind, r.Expr)
		}
		if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
		if r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
			t.Errorf("%s: %+v", r.Alert, r)
		}
		for _, text := range r.Annotations {
			for _, used := range placeholder.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(by, used[1]) {
					t.Errorf("%s: its text has %s, which its expression does not keep", r.Alert, used[1])
				}
			}
		}
	}
}
