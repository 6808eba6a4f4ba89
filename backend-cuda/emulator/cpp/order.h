// In which order things run that a GPU would run at the same time.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace emulator {

// The order in which blocks, warps and lanes run: 0 forwards, 1 backwards, any other number is
// the seed of a random one, in which also the warps take turns at every warp operation.
class Order {
public:
    explicit Order(int number) : number(number), random(static_cast<unsigned>(number)) {}

    bool takes_turns() const { return number > 1; }

    std::vector<unsigned> of(unsigned count) {
        std::vector<unsigned> order(count);
        std::iota(order.begin(), order.end(), 0u);
        if (number == 1) std::reverse(order.begin(), order.end());
        if (number > 1) std::shuffle(order.begin(), order.end(), random);
        return order;
    }

private:
    int number;
    std::minstd_rand random;
};

}  // namespace emulator
