// In place of marine-js's own snippet, whose files are in memory and, as SQLite writes them, come to harm: Node's WASI,
// with ORACLE_FOLDER as /tmp.
import { WASI } from 'node:wasi';

export function create_wasi(env) {
    return new WASI({
        version: 'preview1',
        stdout: 2, // where answers are expected, services print too
        env: Object.fromEntries(env),
        preopens: { '/tmp': process.env.ORACLE_FOLDER },
    });
}

export function generate_wasi_imports(module, wasi) {
    const { wasi_snapshot_preview1: functions } = wasi.getImportObject();
    const asked = WebAssembly.Module.imports(module).filter((one) => one.module.startsWith('wasi_'));
    return Object.fromEntries(asked.map((one) => [one.module, functions]));
}

export function bind_to_instance(wasi, instance) {
    // Without `_initialize`, which marine calls by itself.
    wasi.initialize({ exports: { memory: instance.exports.memory } });
}
