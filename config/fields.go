package config

import (
	"reflect"
	"strings"
)

// walk visits the fields that hold values, by key: those of nested structs too,
// but not inside lists.
func walk(v reflect.Value, parent string, visit func(key string, field reflect.Value)) {
	for i := range v.NumField() {
		key := join(parent, yamlKey(v.Type().Field(i)))
		if field := v.Field(i); field.Kind() == reflect.Struct {
			walk(field, key, visit)
		} else {
			visit(key, field)
		}
	}
}

// tree writes a struct's values into nested maps.
func tree(v reflect.Value, into map[string]any) {
	for i := range v.NumField() {
		key := yamlKey(v.Type().Field(i))
		if field := v.Field(i); field.Kind() == reflect.Struct {
			nested := map[string]any{}
			tree(field, nested)
			into[key] = nested
		} else {
			into[key] = field.Interface()
		}
	}
}

// fieldByKey finds the field of a struct type that a YAML key sets.
func fieldByKey(t reflect.Type, key string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if field := t.Field(i); yamlKey(field) == key {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

func yamlKey(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return name
}

func join(parent, key string) string {
	if parent == "" {
		return key
	}
	return parent + "." + key
}
