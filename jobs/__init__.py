"""The shared core: settings, records, errors, tables, store, objects, queue, intake, sweep, services."""
