package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

// streamsAPI is the part of Benthos' streams mode that answers requests.
type streamsAPI interface {
	HandleStreamCRUD(http.ResponseWriter, *http.Request)
	HandleStreamsCRUD(http.ResponseWriter, *http.Request)
}

// endpoints is where Benthos' components register what they serve. A path that is registered again changes hands.
type endpoints interface {
	RegisterEndpoint(path, description string, handler http.HandlerFunc)
}

// gate holds the configs of streams mode against the rules over a whole config: those in files before they are started, and those
// that come over HTTP before they are created or changed. Benthos checks streams field by field, and has no hook for more.
type gate struct {
	schema    *service.ConfigSchema
	catalog   *lint.Catalog
	log       *service.Logger
	chilled   bool
	resources []lint.Resources // that all streams can use
	allowed   []string
	endpoints endpoints
	api       streamsAPI
}

// files looks at configs in files, each by itself and all together.
func (g *gate) files(names []string) (found []lint.Finding, err error) {
	var configs []*lint.Config
	var sources []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading the config of a stream: %w", err)
		}
		root, err := lint.ParseYAML(text, nil)
		if err != nil || bytes.HasPrefix(text, []byte(lintDisabled)) {
			continue // which Benthos tells, and honours
		}
		configs, sources = append(configs, g.read(root)), append(sources, filepath.Clean(name))
	}
	together := lint.CheckTogether(configs, sources)
	for i, c := range configs {
		for _, f := range append(lint.Check(c), together[i]...) {
			if f.File == "" {
				f.File = sources[i]
			}
			found = append(found, f)
		}
	}
	return found, nil
}

func (g *gate) read(root *yaml.Node) *lint.Config {
	c := g.catalog.Read(root, g.resources...)
	c.Allow(g.allowed...)
	return c
}

// install puts the gate before the API.
func (g *gate) install(running *service.RunningStreamSummary) {
	g.api = streamsAPIOf(running)
	if g.api == nil || g.endpoints == nil {
		g.log.Warn("Configs that come through the streams API are not held against the rules over a whole config: this version of Benthos hides where they arrive; lint them before they are sent")
		return
	}
	g.endpoints.RegisterEndpoint("/streams/{id}", "Create (POST), read (GET), change (PUT, PATCH) and delete (DELETE) a stream.", g.stream)
	g.endpoints.RegisterEndpoint("/streams", "GET: the streams and how they are. POST: an object of configs by ids, which takes the place of all streams.", g.set)
}

// stream answers for one stream.
func (g *gate) stream(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		g.api.HandleStreamCRUD(w, r)
		return
	}
	body, ok := g.body(w, r)
	if !ok {
		return
	}
	if r.Method == http.MethodPatch && len(bytes.TrimSpace(body)) == 0 {
		http.Error(w, "Error: the request has no body: send the fields to change", http.StatusBadRequest)
		return
	}
	root, err := lint.ParseYAML(body, nil)
	if r.Method == http.MethodPatch && errors.Is(err, lint.ErrNoMapping) {
		http.Error(w, "Error: "+err.Error(), http.StatusBadRequest)
		return
	}
	var found []lint.Finding
	if err == nil && r.Method == http.MethodPatch {
		if root, err = g.patched(r, root); err == nil {
			found = g.fields(root)
		}
	}
	switch wrong := new(lint.TextError); {
	case errors.As(err, &wrong):
		found = append(found, ofText(wrong))
	case err == nil: // what cannot be read is told by the API itself
		found = append(found, lint.Check(g.read(root))...)
	}
	if r.Method == http.MethodPatch && err == nil {
		for i := range found {
			found[i].Line = 0 // lines of a text that nobody has written
		}
	}
	if g.refused(w, r, map[string][]lint.Finding{"": found}) {
		return
	}
	g.api.HandleStreamCRUD(w, r)
}

// set answers for all streams together.
func (g *gate) set(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		g.api.HandleStreamsCRUD(w, r)
		return
	}
	body, ok := g.body(w, r)
	if !ok {
		return
	}
	if len(bytes.TrimSpace(body)) == 0 { // which Benthos takes for an empty set, and stops all streams
		http.Error(w, "Error: the request has no body: send an object of configs by ids; {} is the set without a stream", http.StatusBadRequest)
		return
	}
	root, err := lint.ParseYAML(body, nil)
	if wrong := new(lint.TextError); errors.As(err, &wrong) && g.refused(w, r, map[string][]lint.Finding{"": {ofText(wrong)}}) {
		return
	}
	if err == nil {
		byID := map[string]yaml.Node{}
		if root.Decode(&byID) == nil {
			ids := slices.Sorted(maps.Keys(byID))
			configs := make([]*lint.Config, len(ids))
			for i, id := range ids {
				node := byID[id]
				configs[i] = g.read(&node)
			}
			found := map[string][]lint.Finding{}
			for i, together := range lint.CheckTogether(configs, ids) {
				found[fmt.Sprintf("stream '%s': ", ids[i])] = append(lint.Check(configs[i]), together...)
			}
			if g.refused(w, r, found) {
				return
			}
		}
	}
	g.api.HandleStreamsCRUD(w, r)
}

// fields is what Benthos' own lint finds in a config that came about by a change. Its API checks what it is sent with POST and PUT, and
// not what PATCH makes of a stream: a field that does not exist was taken as changed, and a value of a wrong type ended the stream.
func (g *gate) fields(root *yaml.Node) (found []lint.Finding) {
	text, err := yaml.Marshal(root)
	if err != nil {
		return nil
	}
	lints, err := g.schema.NewStreamConfigLinter().SetSkipEnvVarCheck(true).LintYAML(text)
	if err != nil {
		return []lint.Finding{{Rule: "fields", Level: lint.Error, Path: "the stream with the changes", What: oneLine(err.Error())}}
	}
	for _, l := range lints {
		found = append(found, lint.Finding{Rule: "fields", Level: lint.Error, Path: "the stream with the changes", What: l.What})
	}
	return found
}

// ofText is what is wrong with a text as a finding.
func ofText(e *lint.TextError) lint.Finding {
	return lint.Finding{Rule: "text", Level: lint.Error, Path: "the config", Line: e.Line, Column: 1, What: e.What}
}

// body reads a request's body, and leaves it to be read again.
func (g *gate) body(w http.ResponseWriter, r *http.Request) (text []byte, ok bool) {
	text, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		http.Error(w, fmt.Sprintf("Error: reading the request: %v", err), http.StatusBadRequest)
		return nil, false
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	return text, true
}

// refused answers a request whose configs, named by prefixes, have errors, as Benthos answers what its own lint finds. Warnings are
// logged.
func (g *gate) refused(w http.ResponseWriter, r *http.Request, found map[string][]lint.Finding) bool {
	chilled := g.chilled || r.URL.Query().Get("chilled") == "true"
	var errs []string
	for _, prefix := range slices.Sorted(maps.Keys(found)) {
		for _, f := range found[prefix] {
			if f.Level == lint.Error && !chilled {
				errs = append(errs, prefix+f.String())
				continue
			}
			g.log.Warnf("%s %s: %s%s", r.Method, r.URL.Path, prefix, f)
		}
	}
	if len(errs) == 0 {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string][]string{"lint_errors": errs})
	return true
}

// patched is the config of a stream with changes put into it, as the API does it: objects are merged, and anything else is replaced.
func (g *gate) patched(r *http.Request, changes *yaml.Node) (*yaml.Node, error) {
	question := r.Clone(r.Context()) // which says what stream it is
	question.Method, question.Body = http.MethodGet, http.NoBody
	var answer answer
	g.api.HandleStreamCRUD(&answer, question)
	var now struct {
		Config any `json:"config"`
	}
	if err := json.Unmarshal(answer.body.Bytes(), &now); err != nil {
		return nil, fmt.Errorf("reading the stream's config: %w", err) // there is no such stream
	}
	var patch any
	if err := changes.Decode(&patch); err != nil {
		return nil, fmt.Errorf("reading the changes: %w", err)
	}
	return lint.ParseValue(merged(now.Config, patch))
}

func merged(into, from any) any {
	a, isA := into.(map[string]any)
	b, isB := from.(map[string]any)
	if !isA || !isB {
		return from
	}
	all := maps.Clone(a)
	for key, value := range b {
		if before, has := all[key]; has {
			value = merged(before, value)
		}
		all[key] = value
	}
	return all
}

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	body   bytes.Buffer
}

func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}
func (a *answer) Write(text []byte) (int, error) { return a.body.Write(text) }
func (a *answer) WriteHeader(int)                {}

// streamsAPIOf finds the API in what Benthos tells of a running service, whose only field is not exported. There is no other way to
// it: Benthos makes the handlers and hands them to a router, which nobody else sees. Nil when it is not there.
func streamsAPIOf(running *service.RunningStreamSummary) streamsAPI {
	v := reflect.ValueOf(running).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Interface || f.IsNil() {
			continue
		}
		if api, is := reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem().Interface().(streamsAPI); is {
			return api
		}
	}
	return nil
}

// endpointsOf finds where a service's endpoints are registered. Benthos gives it to its own components alone, by a method whose
// result has a type that cannot be named here. Nil when it is not there.
func endpointsOf(r *service.Resources) endpoints {
	unwrap := reflect.ValueOf(r.XUnwrapper()).MethodByName("Unwrap")
	if !unwrap.IsValid() || unwrap.Type().NumIn() != 0 || unwrap.Type().NumOut() != 1 {
		return nil
	}
	e, _ := unwrap.Call(nil)[0].Interface().(endpoints)
	return e
}
