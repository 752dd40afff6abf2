package stack

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A jarSet is what one service needs on its class path: Maven artifacts, and Java sources of our own compiled
// against them.
type jarSet struct {
	name  string // in paths: "pulsar"
	title string // in messages, with the size of the download

	// artifacts are Maven coordinates, group:artifact:version[:classifier].
	artifacts []string

	// flat takes the artifacts alone: nothing they depend on is added, and so no version is mediated.
	flat bool

	sources map[string]string // file name → Java source
}

// compiler is the Eclipse compiler: it needs no JDK, while javac is missing from a runtime-only Java (as
// Debian's maven package brings it). It is removed from the cache entry once it has done its work.
const compiler = "org.eclipse.jdt:ecj:3.33.0"

//go:embed pulsar.jars
var pulsarArtifacts string

//go:embed LoopbackDynamoDB.java
var loopbackDynamoDB string

var pulsarJars = &jarSet{
	name:      "pulsar",
	title:     "Apache Pulsar 4.2.4 (140 MB)",
	artifacts: artifactLines(pulsarArtifacts),
	flat:      true,
}

var dynamoDBJars = &jarSet{
	name:  "dynamodb",
	title: "DynamoDB Local 3.1.0 (50 MB)",
	// 3.3.1 depends on artifacts that not every mirror of Maven Central has.
	artifacts: []string{"software.amazon.dynamodb:DynamoDBLocal:3.1.0", compiler},
	sources:   map[string]string{"LoopbackDynamoDB.java": loopbackDynamoDB},
}

// artifactLines reads a list of coordinates: one a line, "#" begins a comment.
func artifactLines(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// pom returns a Maven project that depends on the artifacts.
func (s *jarSet) pom() string {
	var b strings.Builder
	b.WriteString(`<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>` + s.name + `</artifactId><version>1</version><packaging>pom</packaging>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId><version>3.8.1</version>
  </plugin></plugins></build>
  <dependencies>
`)
	for _, artifact := range s.artifacts {
		c := strings.Split(artifact, ":")
		fmt.Fprintf(&b, "    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version>", c[0], c[1], c[2])
		if len(c) > 3 {
			fmt.Fprintf(&b, "<classifier>%s</classifier>", c[3])
		}
		if s.flat {
			b.WriteString("<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>")
		}
		b.WriteString("</dependency>\n")
	}
	b.WriteString("  </dependencies>\n</project>\n")
	return b.String()
}

// cacheRoot returns where the jars of all sets are kept.
func cacheRoot() (string, error) {
	root := os.Getenv("KINESIS_PULSAR_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w: no place for the jars: set KINESIS_PULSAR_CACHE to a folder: %w", ErrUnavailable, err)
		}
		root = filepath.Join(user, "kinesis-pulsar")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w", err)
	}
	return filepath.Join(root, "stack"), nil
}

// dir returns the cache entry of the set. Its name holds a hash of everything the entry is made from.
func (s *jarSet) dir() (string, error) {
	root, err := cacheRoot()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00", s.pom())
	for _, name := range sortedKeys(s.sources) {
		fmt.Fprintf(h, "%s\x00%s\x00", name, s.sources[name])
	}
	return filepath.Join(root, fmt.Sprintf("%s-%x", s.name, h.Sum(nil)[:8])), nil
}

// A library is a complete cache entry.
type library struct {
	dir string
}

// classPath returns the class path in the form for java's -cp.
func (l library) classPath() string {
	return filepath.Join(l.dir, "classes") + string(os.PathListSeparator) + filepath.Join(l.dir, "lib", "*")
}

// Fetch downloads what the services need unless it is in the cache already. progress, when not nil, is told about a
// download before it begins. Errors are ErrUnavailable when no jar could be got, whatever the reason.
func Fetch(ctx context.Context, progress func(string)) error {
	for _, set := range []*jarSet{dynamoDBJars, pulsarJars} {
		if _, err := set.fetch(ctx, progress); err != nil {
			return err
		}
	}
	return nil
}

// fetch returns the set's cache entry and makes it first when it is missing.
//
// Processes that want the same entry at once make it one after the other, under a file lock: the second finds it
// done. The entry is built beside its place and renamed into it, so that a half-made one is never taken for
// whole, whenever a process dies.
func (s *jarSet) fetch(ctx context.Context, progress func(string)) (library, error) {
	if err := available(s); err != nil {
		return library{}, err
	}
	dir, err := s.dir()
	if err != nil {
		return library{}, err
	}
	done := library{dir: dir}
	if _, err := os.Stat(dir); err == nil {
		return done, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return library{}, fmt.Errorf("%w: making the cache folder: %w", ErrUnavailable, err)
	}
	lock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return library{}, err
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil {
		return done, nil
	}
	if progress != nil {
		progress("downloading " + s.title + " from Maven Central, once")
	}
	// What a process that died here has left is worth nothing: Maven keeps finished downloads in its own repository.
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return library{}, fmt.Errorf("removing an unfinished download: %w", err)
	}
	defer os.RemoveAll(partial)
	if err := s.build(ctx, partial); err != nil {
		return library{}, err
	}
	if err := os.Rename(partial, dir); err != nil {
		return library{}, fmt.Errorf("putting the jars in place: %w", err)
	}
	return done, nil
}

// build fills the folder dir with lib/*.jar and classes/*.class.
func (s *jarSet) build(ctx context.Context, dir string) error {
	lib, classes := filepath.Join(dir, "lib"), filepath.Join(dir, "classes")
	for _, d := range []string{lib, classes} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("making the cache folder: %w", err)
		}
	}
	pom := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(pom, []byte(s.pom()), 0o644); err != nil {
		return fmt.Errorf("writing the Maven project: %w", err)
	}
	maven, err := findMaven()
	if err != nil {
		return err
	}
	// The user's own settings (mirrors, proxies, credentials) and local repository are in force: nothing here
	// names a registry.
	run := func(what string, timeout time.Duration, name string, args ...string) error {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		return runToEnd(ctx, what, cmd, filepath.Join(dir, what+".log"), timeout)
	}
	err = run("maven", 15*time.Minute, maven, "--batch-mode", "--quiet", "-f", pom,
		"dependency:copy-dependencies", "-DoutputDirectory="+lib, "-DincludeScope=runtime")
	if err != nil {
		return fmt.Errorf("%w: downloading %s: %w", ErrUnavailable, s.title, err)
	}
	if len(s.sources) == 0 {
		return nil
	}
	java, err := findJava()
	if err != nil {
		return err
	}
	args := []string{"-cp", filepath.Join(lib, "*"), "org.eclipse.jdt.internal.compiler.batch.Main",
		"-17", "-proc:none", "-nowarn", "-d", classes}
	for _, name := range sortedKeys(s.sources) {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(s.sources[name]), 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		args = append(args, file)
	}
	if err := run("compiler", time.Minute, java.path, args...); err != nil {
		return fmt.Errorf("compiling for %s: %w", s.title, err)
	}
	jars, err := filepath.Glob(filepath.Join(lib, "ecj-*.jar"))
	if err != nil {
		return err
	}
	for _, jar := range jars {
		if err := os.Remove(jar); err != nil {
			return fmt.Errorf("removing the compiler: %w", err)
		}
	}
	return nil
}

// runToEnd runs a command that does its work and ends. Its output goes to a log file, the end of which is part of
// the error.
func runToEnd(ctx context.Context, what string, cmd *exec.Cmd, log string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%s takes longer than %v", what, timeout))
	defer cancel()
	p, err := startProcess(what, cmd, log)
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.kill()
		return p.failure(context.Cause(ctx))
	}
	if p.err != nil {
		return p.failure(fmt.Errorf("%s failed: %w", what, p.err))
	}
	return nil
}
