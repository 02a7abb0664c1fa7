#!/usr/bin/env bash
# The whole way once: DICOM, stores, training on two ranks, every checkpoint on every cohort, the report, one
# reconstruction with its page, and the model as one file. Plain commands that can be copied one by one. Run again, it continues where it was.
#   launch/demo.sh [--data FOLDER [--splits CSV]]
# FOLDER holds real chest CT: a subfolder a cohort by its name (lidc-idri, lctsc, …), or lidc-idri alone.
set -euo pipefail

data='' splits='' work=runs/demo config=configs/demo.yaml
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=$2; shift 2 ;;
        --splits) splits=$2; shift 2 ;;
        *) echo "launch/demo.sh: unknown argument '$1'; expected --data or --splits" >&2; exit 2 ;;
    esac
done
cohorts=(lidc-idri covid-19-ny-sbu spie-aapm midrc-ricord-1b anti-pd-1 lctsc nsclc-radiomics)
say() { printf '\n== %s\n' "$*"; }

if [ -z "$data" ]; then
    data=$work/dicom
    say 'Synthetic chests as DICOM series, seven cohorts'
    for cohort in "${cohorts[@]}"; do
        patients=2; [ "$cohort" = lidc-idri ] && patients=20
        xr2ct phantom "$data/$cohort" --cohort "$cohort" --patients $patients --seed 1
    done
else
    work=runs/demo-real
    config=$work/config.yaml
    mkdir -p "$work"
    printf 'base: %s\nname: demo-real\nrun_root: %s\ndata: {stores: %s/stores}\n' "$PWD/configs/demo.yaml" "$work" "$work" >"$config"
fi

say 'DICOM to Zarr stores with their X-rays'
stores=$work/stores
found=()
for cohort in "${cohorts[@]}"; do
    [ -d "$data/$cohort" ] && found+=("$cohort")
done
if [ ${#found[@]} -eq 0 ]; then
    found=(lidc-idri)
    folder_of() { echo "$data"; }
else
    folder_of() { echo "$data/$1"; }
fi
for cohort in "${found[@]}"; do
    who=test
    [ "$cohort" = lidc-idri ] && who=${splits:-seeded}
    xr2ct ingest "$cohort" "$(folder_of "$cohort")" --out "$stores/$cohort.zarr" --size 64 --angles 0,90,270 --splits "$who"
done

say 'Training: neural optimal transport, two ranks'
run=$(xr2ct submit "$config" --cluster local --wait | tee /dev/stderr | sed -En 's/^(job [^:]*|finished): //p')

say 'Every checkpoint on every cohort'
xr2ct evaluate "$run"

say 'The report'
page=$(xr2ct report "$run" --out "$work/report")

say 'A reconstruction from two X-rays, moved to agree with them'
case_id=$(xr2ct inspect "$stores/lidc-idri.zarr" --json | python3 -c '
import json, sys
splits = json.load(sys.stdin)["splits"]
print(next(case for split in ("test", "val") for case in splits[split]))')
xr2ct project "$stores/lidc-idri.zarr" --case "$case_id" --angles 90,0 --out "$work/xrays"
xrays=$work/xrays/$case_id
volume=$work/$case_id.mha unseen=$work/$case_id-unseen.mha
xr2ct reconstruct "$run/best" --view "RLAT=$xrays/angle_090.mha" --view "AP=$xrays/angle_000.mha" --refine 20 --unseen --out "$volume"
patient=$(xr2ct view "$volume" --xray "RLAT=$xrays/angle_090.mha" --xray "AP=$xrays/angle_000.mha" --unseen "$unseen" --out "$work/$case_id.html")

say 'A model to hand on'
model=$work/demo.xr2ct
xr2ct export "$run" --to "$model"

say 'Done'
cat "$work/report/cohorts.md"
cat <<END

The mapper was trained for minutes on a few chests. It need not beat the prior rows (mean chest, nearest
patient) in this table, and where it does not, the table says so.

page      $page
volume    $volume  (opens in 3D Slicer)
patient   $patient  (the same volume in a browser, beside its X-rays)
model     $model  (xr2ct card $model)
MLflow    $work/mlflow.db  (mlflow ui --backend-store-uri sqlite:///$work/mlflow.db)
run       $run
END
